"""Tiny real checkpoints (transformers' own Llama, random weights) and rollouts for them, made in a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

VOCAB = 320


def save_checkpoint(path: Path, seed: int, noise: float = 0.0, **overrides: Any) -> Path:
    """A Llama of 2 layers; `noise` moves every weight of seed 0, so that checkpoints are neighbours."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "initializer_range": 0.2,
            **overrides,
        }
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    model.save_pretrained(path)
    return path


def save_adapter(path: Path, base: Path, seed: int, scale: float = 0.1, **overrides: Any) -> Path:
    """A LoRA adapter with random weights on `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **overrides}),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(scale * torch.randn_like(parameter))
    model.save_pretrained(path)
    return path


def records(
    step: int = 0, groups: int = 3, samples: int = 4, seed: int = 0, length: tuple[int, int] = (5, 20), **extra: Any
) -> list[dict[str, Any]]:
    """Rollout records over the tiny vocabulary; log-probs are made up, advantages have every sign."""
    rng = random.Random(f"{seed}/{step}")
    rows = []
    for group in range(groups):
        prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(3, 9))]
        for sample in range(samples):
            n = rng.randint(*length)
            rows.append(
                {
                    "step": step,
                    "group_id": f"s{step}/g{group}",
                    "sample_id": f"s{step}/g{group}/{sample}",
                    "prompt_token_ids": prompt,
                    "response_token_ids": [rng.randrange(VOCAB) for _ in range(n)],
                    "response_mask": [1] * n,
                    "rollout_logprobs": [-rng.expovariate(0.3) - 1e-3 for _ in range(n)],
                    "advantage": rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0]),
                    "reward": float(rng.random() < 0.5),
                    **extra,
                }
            )
    return rows

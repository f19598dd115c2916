"""A policy of the lab as an ordinary Hugging Face checkpoint: GPT-2 in safetensors, with a tokenizer of its words."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dppo_core.lab.language import BOS, EOS, PAD, TOKENS
from dppo_core.lab.policy import NORM_EPSILON, Shape

__all__ = ["save_checkpoint"]


def save_checkpoint(flat_P: Tensor, shape: Shape, folder: Path) -> Path:
    """Write config, weights and tokenizer to `folder`, which `AutoModelForCausalLM.from_pretrained` reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.positions,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        layer_norm_epsilon=NORM_EPSILON,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = GPT2LMHeadModel(config)
    named = {
        name if name.startswith("lm_head") else f"transformer.{name}": values.clone()
        for name, values in shape.weights(flat_P.detach()).items()
    }
    model.load_state_dict(named, strict=True)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({token: place for place, token in enumerate(TOKENS)}, unk_token=TOKENS[PAD]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=TOKENS[BOS], eos_token=TOKENS[EOS], pad_token=TOKENS[PAD]
    ).save_pretrained(folder)
    return folder

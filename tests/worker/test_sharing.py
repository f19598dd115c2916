"""A prompt computed once for its responses gives what every response gives alone, or is not tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.worker import batches as batching
from service.worker import sharing
from service.worker.batches import Response, batches, packed
from service.worker.pairs import lay_out
from service.worker.policies import Checkpoint, Policy, PolicyPool
from tests.conftest import Checkpoints
from tests.tiny import VOCAB, save_adapter

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def response(row: int, prompt: list[int], length: int, holes: tuple[int, ...] = ()) -> Response:
    counted = np.ones(length, dtype=np.bool_)
    counted[list(holes)] = False
    tokens = np.random.default_rng([row, *prompt]).integers(0, VOCAB, length)
    return Response(row, np.array(prompt), tokens, counted)


def mixed() -> list[Response]:
    """Two groups and a loner: unequal lengths, holes in front, inside and at the end, one-token responses."""
    first, second, third = [5, 6, 7, 8, 9], [5, 6, 7], [100]
    return [
        response(0, first, 12),
        response(1, second, 1),
        response(2, first, 30, holes=(0, 1, 7, 8)),
        response(3, first, 12, holes=(11, 10, 9)),
        response(4, third, 9),
        response(5, first, 1),
        response(6, second, 17),
        response(7, second, 4, holes=(0, 1, 2, 3)),  # nothing counts
        response(8, second, 17, holes=(0,)),
    ]


def policy_of(path: Path, adapter: Path | None = None) -> Policy:
    pool = PolicyPool(torch.device("cpu"), torch.float32)
    (policy,) = pool.get([Checkpoint(str(path), "", str(adapter) if adapter else None)])
    return policy


def save(path: Path, family: str, **config: Any) -> Path:
    import transformers

    torch.manual_seed(0)
    settings = getattr(transformers, f"{family}Config")(**{**SMALL, **config})
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(path)
    return path


def alone(policy: Policy, item: Response) -> torch.Tensor:
    """The logits of the counted tokens from one unpadded sequence through the model's own attention."""
    ids = torch.from_numpy(np.concatenate([item.prompt, item.response])).unsqueeze(0)
    at = len(item.prompt) - 1 + np.flatnonzero(item.counted)
    return logits(policy, policy.hidden(ids)[0, at])


def logits(policy: Policy, rows: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(rows), policy.vocab_size)
    policy.logits_of(rows)(0, len(rows), out)
    return out


def assert_as_alone(policy: Policy, plan: list[batching.Batch], items: list[Response]) -> None:
    found: dict[int, torch.Tensor] = {}
    for batch in plan:
        values = logits(policy, policy.hidden_rows(batch))
        sizes = [int(items[row].counted.sum()) for row in batch.rows]
        for row, part, sampled in zip(batch.rows, values.split(sizes), batch.sampled.split(sizes), strict=True):
            assert row not in found
            found[row] = part
            assert sampled.tolist() == items[row].response[items[row].counted].tolist()
    assert found.keys() == {item.row for item in items if item.counted.any()}
    for row, values in found.items():
        torch.testing.assert_close(values, alone(policy, items[row]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("on_gpu", [False, True], ids=["calls of one length", "padded calls"])
@pytest.mark.parametrize("with_adapter", [False, True], ids=["full", "LoRA"])
@pytest.mark.parametrize("budget", [10, 40, 4096])
def test_mixed_prompts(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, with_adapter: bool, budget: int
) -> None:
    monkeypatch.setattr(sharing, "_on_gpu", lambda _: on_gpu)
    policy = policy_of(checkpoints.steps[0], checkpoints.adapters[0] if with_adapter else None)
    items = mixed()
    for share_prompts in (True, False):
        plan = lay_out(items, [policy], share_prompts=share_prompts, batch_tokens=budget)
        shared = [len(tree.responses) for batch in plan for tree in batch.trees if len(tree.responses) > 1]
        assert (shared != []) == share_prompts
        assert_as_alone(policy, plan, items)
    assert_as_alone(policy, list(batches(items, budget)), items)


def test_sharing_changes_no_bit(checkpoints: Checkpoints) -> None:
    policy = policy_of(checkpoints.steps[1])
    items = [response(row, [3, 1, 4, 1, 5], 40 + row % 3) for row in range(8)]
    (batch,) = lay_out(items, [policy], batch_tokens=4096)
    assert [tree.responses for tree in batch.trees] == [(39, 39, 39, 40, 40, 40, 41, 41)]
    sizes = [len(items[row].response) for row in batch.rows]
    at = dict(zip(batch.rows, policy.hidden_rows(batch).split(sizes), strict=True))
    for single in lay_out(items, [policy], share_prompts=False, batch_tokens=1):
        (row,) = single.rows
        assert torch.equal(policy.hidden_rows(single), at[row])


def test_queries_in_blocks(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sharing.QUERY_BLOCK, "cpu", 8)
    policy = policy_of(checkpoints.steps[0])
    items = [response(0, [1, 2, 3], 30), response(1, [1, 2, 3], 17), response(2, [4] * 40, 9), response(3, [4] * 40, 8)]
    assert_as_alone(policy, lay_out(items, [policy]), items)


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers.:UserWarning")
def test_a_head_with_an_adapter(checkpoints: Checkpoints, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "a", checkpoints.steps[0], 3, scale=0.2, target_modules=["q_proj", "lm_head"])
    policy = policy_of(checkpoints.steps[0], adapter)
    bare = Policy(policy.base, None, policy.device)
    items = mixed()
    with_it, without = alone(policy, items[0]), alone(bare, items[0])
    assert float((with_it - without).abs().max()) > 0.1
    assert_as_alone(policy, lay_out(items, [policy]), items)
    assert torch.equal(alone(bare, items[0]), without)
    torch.testing.assert_close(without, alone(policy_of(checkpoints.steps[0]), items[0]))


MLA = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 12}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("Qwen2", {}),
        ("Qwen3", {"head_dim": 16}),
        ("Olmo2", {}),
        ("GPT2", {"n_positions": 256}),
        ("GPTNeoX", {}),
        ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
        ("DeepseekV3", {**MLA, **EXPERTS, "num_key_value_heads": 4, "first_k_dense_replace": 1}),
    ],
)
def test_families_that_share(tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    policy = policy_of(save(tmp_path / family, family, **config))
    assert policy.can_branch
    items = mixed()
    plan = lay_out(items, [policy])
    assert any(len(tree.responses) > 1 for batch in plan for tree in batch.trees)
    assert_as_alone(policy, plan, items)


MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("Mistral", {"sliding_window": 128}),  # longer than the trial
        ("Gemma2", {"head_dim": 8, "sliding_window": 4}),  # eager: it caps its scores
        ("Llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        ("Bloom", {"n_layer": 2, "n_head": 4}),  # positions from the mask
        ("Mamba", {"state_size": 8}),
        ("GraniteMoeHybrid", {**MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # slow paths without CUDA kernels say so
def test_families_that_fall_back(tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    policy = policy_of(save(tmp_path / family, family, **config))
    assert not policy.can_branch
    items = mixed()
    plan = lay_out(items, [policy])
    assert all(batch.trees == () for batch in plan)
    assert_as_alone(policy, plan, items)


@pytest.mark.parametrize("family", ["Mistral", "Bloom", "GraniteMoeHybrid"])
@pytest.mark.filterwarnings("ignore")
def test_the_trial_catches_what_the_configuration_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    config = {"Mistral": {"sliding_window": 128}, "Bloom": {"n_layer": 2, "n_head": 4}}
    hybrid = {**MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0}
    monkeypatch.setattr(sharing, "_known_limits", lambda _: False)
    assert not policy_of(save(tmp_path / family, family, **config.get(family, hybrid))).can_branch


@pytest.mark.parametrize(
    ("family", "config", "limited"),
    [
        ("LlamaConfig", {}, False),
        ("LlamaConfig", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, False),
        ("LlamaConfig", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, True),
        ("MistralConfig", {"sliding_window": 4096}, True),
        ("Qwen2Config", {"sliding_window": 4096}, False),  # not used
        ("Qwen2Config", {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 1}, True),
        ("GraniteMoeHybridConfig", {"layer_types": ["mamba", "attention"]}, True),
        ("Llama4TextConfig", {"layer_types": ["full_attention"] * 2, "attention_chunk_size": 8192}, True),
    ],
)
def test_limits_that_a_configuration_states(family: str, config: dict[str, Any], limited: bool) -> None:
    import transformers

    assert sharing._known_limits(getattr(transformers, family)(num_hidden_layers=2, **config)) == limited


def test_a_group_larger_than_a_batch_is_cut_evenly() -> None:
    items = [response(row, [7] * 20, 11) for row in range(9)]  # 20 + 9·10 tokens
    # room: 4 of the longest sequences = 4·30 = 120 tokens, so the group stays whole whatever the batch
    assert [batch.token_ids_BT.numel() for batch in packed(items, 30)] == [110]
    # 18 of them: 20 + 180 tokens do not fit into 120; 180 / (120 − 20) → two parts of 9
    twice = items + [response(row, [7] * 20, 11) for row in range(9, 18)]
    assert [batch.token_ids_BT.numel() for batch in packed(twice, 30)] == [110, 110]


def test_prompts_are_shared_by_tokens_not_by_group() -> None:
    items = [response(0, [1, 2, 3, 4], 3), response(1, [1, 2, 3, 5], 3), response(2, [1, 2, 3, 4], 3)]
    (batch,) = packed(items, 4096)
    assert sorted(len(tree.responses) for tree in batch.trees) == [1, 2]
    assert batch.token_ids_BT.tolist()[0].count(4) >= 1

"""Statistics of the recorded run's real logits: against float64, and in the order that refining a partition demands."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from dppo_core import two_policy
from dppo_core.reference import reference_token
from dppo_core.two_policy import TwoPolicyScorer, rows_of
from tests.live import REPOSITORY

pytestmark = pytest.mark.model

DEMO = REPOSITORY / "service" / "cli" / "demo_data" / "smollm2-arith"
Logits = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def real(base_checkpoint: Path) -> Logits:
    """Logits of OLD and NEW [N, V] and the sampled ids [N] of some responses of every step."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with gzip.open(DEMO / "rollouts.jsonl.gz", "rt") as file:
        rows = [row for index, row in enumerate(map(json.loads, file)) if index % 24 == 0]
    base = AutoModelForCausalLM.from_pretrained(base_checkpoint, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, DEMO / "adapters" / "step_000", adapter_name="0").eval()
    for step in range(1, 6):
        model.load_adapter(DEMO / "adapters" / f"step_{step:03d}", adapter_name=str(step))
    parts = []
    for row in rows:
        ids = torch.tensor([row["prompt_token_ids"] + row["response_token_ids"]])
        sides = []
        for step in (row["step"], row["step"] + 1):
            model.set_adapter(str(step))
            with torch.inference_mode():
                sides.append(model(ids).logits[0, len(row["prompt_token_ids"]) - 1 : -1].clone())
        parts.append((*sides, torch.tensor(row["response_token_ids"])))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[misc]


def test_order_before_any_rounding_is_mended(real: Logits, monkeypatch: pytest.MonkeyPatch) -> None:
    """binary ≤ top-K ≤ exact to 1e-8 (TV) and 1e-7 (KL) in what was computed, not only in what is reported."""
    shortfalls: dict[str, float] = {}
    raised = two_policy._raised

    def watched(exact: torch.Tensor, topk: torch.Tensor, slack: float, at: slice, name: str) -> torch.Tensor:
        shortfalls[name] = max(shortfalls.get(name, 0.0), float((topk - exact).max()))
        return raised(exact, topk, slack, at, name)

    monkeypatch.setattr(two_policy, "_raised", watched)
    old, new, sampled = real
    stats = TwoPolicyScorer(old.shape[1]).score(rows_of(old), rows_of(new), sampled)
    assert len(sampled) > 400
    assert set(shortfalls) == {"TV", "KL"}
    assert shortfalls["TV"] <= 1e-8
    assert shortfalls["KL"] <= 1e-7
    for metric in ("tv", "kl"):
        binary, topk, exact = (getattr(stats, f"{metric}_{estimate}") for estimate in ("binary", "topk", "exact"))
        assert bool(((binary <= topk) & (topk <= exact)).all())


def test_accuracy_on_real_logits(real: Logits) -> None:
    old, new, sampled = (values[::16] for values in real)
    stats = TwoPolicyScorer(old.shape[1]).score(rows_of(old), rows_of(new), sampled)
    limits = {
        "tv_binary": 1e-7,
        "kl_binary": 1e-7,
        "tv_topk": 1e-7,
        "kl_topk": 1e-7,
        "tv_exact": 1e-7,
        "kl_exact": 1e-6,
    }
    for index, token in enumerate(sampled.tolist()):
        expected = reference_token(old[index], new[index], token)
        for name, limit in limits.items():
            assert abs(float(getattr(stats, name)[index]) - expected[name]) <= limit, (index, name)

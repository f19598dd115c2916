"""PPO and DPPO masks: boundary cases by hand, other projects' vectors, and the four cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dppo_core.cells import four_cells
from dppo_core.divergence import binary_kl, binary_tv
from dppo_core.masks import Decision, gradient_weight, keep_dppo, keep_ppo

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "reference_vectors.json").read_text())["vectors"]
NAN = math.nan


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def decided(decision: Decision) -> list[bool | None]:
    return [bool(keep) if known else None for keep, known in zip(decision.keep, decision.known, strict=True)]


def test_ppo_is_strict_and_one_sided() -> None:
    up, down = math.log(1.28), math.log(0.8)
    ratios = tensor(up, up + 1e-12, down, down - 1e-12, up + 1, down - 1)
    assert decided(keep_ppo(ratios, tensor(1, 1, -1, -1, -1, 1), 0.2, 0.28)) == [True, False, True, False, True, True]


def test_ppo_dual_clip_drops_large_ratios_of_bad_tokens() -> None:
    ratios = tensor(math.log(3.0), math.log(3.0) + 1e-9, math.log(3.0) + 1e-9)
    assert decided(keep_ppo(ratios, tensor(-1, -1, 1), 0.2, 10.0, dual_clip=3.0)) == [True, False, True]


def test_ppo_with_eps_low_one_never_drops_a_falling_ratio() -> None:
    assert decided(keep_ppo(tensor(-50.0), tensor(-1), 1.0, 0.28)) == [True]


def test_dppo_is_strict_and_never_drops_a_move_toward_one() -> None:
    divergence = tensor(0.125, 0.125 + 1e-15, 0.9, 0.9, 0.2, 0.2)
    log_ratio = tensor(0.3, 0.3, -0.3, 0.3, 0.3, -0.3)
    advantage = tensor(1, 1, 1, -1, 1, -1)
    kept = decided(keep_dppo(divergence, log_ratio, advantage, delta_low=0.25, delta_high=0.125))
    # equal to δ keeps; above drops; moving toward 1 keeps, whatever D; δ_low for A < 0
    assert kept == [True, False, True, True, False, True]


def test_no_gradient_no_drop() -> None:
    assert decided(keep_ppo(tensor(5, -5), tensor(0, 0), 0.2, 0.28)) == [True, True]
    assert decided(keep_dppo(tensor(1, 1), tensor(5, -5), tensor(0, 0), 0.1, 0.1)) == [True, True]


def test_unknown_inputs_give_no_decision() -> None:
    assert decided(keep_ppo(tensor(NAN, 5), tensor(1, NAN), 0.2, 0.28)) == [None, None]
    assert decided(keep_dppo(tensor(NAN, 1, 1), tensor(5, NAN, 5), tensor(1, 1, NAN), 0.1, 0.1)) == [None] * 3


def test_the_paper_s_two_worked_examples() -> None:
    mu, pi = tensor(math.log(1e-4), math.log(0.99)), tensor(math.log(1e-2), math.log(0.80))
    advantage = tensor(1, -1)
    tv = binary_tv(mu, pi)
    assert decided(keep_ppo(pi - mu, advantage, 0.2, 0.28)) == [False, True]
    assert decided(keep_dppo(tv, pi - mu, advantage, 0.15, 0.15)) == [True, False]
    assert decided(keep_dppo(tv, pi - mu, advantage, 0.2, 0.2)) == [True, True]


def _logs(vector: dict[str, Any], name: str) -> torch.Tensor:
    if f"{name}_logprobs" in vector:
        return tensor(*vector[f"{name}_logprobs"])
    return torch.log(tensor(*vector[f"{name}_probs"]))


MASKS = [v for v in VECTORS if v["kind"] in ("dppo_mask", "dppo_loss", "dppo_grad", "dppo_anchor_property")]
DIVERGENCES = [v for v in VECTORS if v["kind"] == "divergence"]
COVERED = {v["id"] for v in MASKS + DIVERGENCES} | {"oi1755_ppo_clip"}
LATER = {  # other methods than PPO and DPPO, and properties without numbers
    "dppo_mask_property",
    "dppo_loss_property",
    "dppo_mask_times_rho",
    "icepop_mask",
    "icepop_mask_sequence",
    "vaco_mask",
    "cispo_clip",
    "drpo_loss",
}


@pytest.mark.parametrize("vector", MASKS, ids=lambda vector: str(vector["id"]))
def test_masks_of_other_implementations(vector: dict[str, Any]) -> None:
    mu = tensor(*vector["rollout_logprobs"]) if "rollout_logprobs" in vector else _logs(vector, "mu")
    pi = _logs(vector, "pi")
    divergence = (binary_kl if vector["variant"] == "binary_kl" else binary_tv)(mu, pi)
    kept = keep_dppo(divergence, pi - mu, tensor(*vector["advantages"]), vector["delta_low"], vector["delta_high"]).keep
    expected = (
        next(
            vector[name]
            for name in ("expected_keep_mask", "derived_keep_mask", "derived_keep_mask_rollout_anchor")
            if vector.get(name) is not None
        )
        if vector["kind"] != "dppo_grad"
        else [1]
    )
    counted = [bool(keep) and bool(mask) for keep, mask in zip(kept, vector["response_mask"], strict=True)]
    for found, wanted in zip(counted, expected, strict=True):
        if wanted is not None:
            assert found == bool(wanted)
    if "expected_ratio" in vector:
        cap = vector.get("ratio_cap")
        weight = gradient_weight(pi - mu, torch.ones(len(pi)), cap)
        assert weight.tolist() == pytest.approx(vector["expected_ratio"])
    if "expected_grad_wrt_logp" in vector:  # the loss's gradient is −keep·r·A
        weight = gradient_weight(pi - mu, tensor(*vector["advantages"]))
        assert (-weight * kept).tolist() == pytest.approx(vector["expected_grad_wrt_logp"])
    if vector["kind"] == "dppo_anchor_property":
        old = tensor(*vector["old_logprobs"])
        from_old = keep_dppo(binary_tv(old, pi), pi - old, tensor(*vector["advantages"]), 0.2, 0.2).keep
        assert from_old.int().tolist() == vector["derived_keep_mask_old_anchor"]


@pytest.mark.parametrize("vector", DIVERGENCES, ids=lambda vector: str(vector["id"]))
def test_divergences_of_other_implementations(vector: dict[str, Any]) -> None:
    mu, pi = _logs(vector, "mu"), _logs(vector, "pi")
    function = binary_kl if vector["variant"] == "binary_kl" else binary_tv
    counted = torch.tensor(vector["response_mask"], dtype=torch.bool)
    found = torch.where(counted, function(torch.where(counted, mu, NAN), torch.where(counted, pi, NAN)), 0.0)
    for value, wanted in zip(found.tolist(), vector["expected_divergence"], strict=True):
        if wanted is None:
            assert value == pytest.approx(math.exp(-0.1) - math.exp(-2.0))
        else:
            assert value == pytest.approx(wanted, abs=vector["atol"])


def test_ppo_clip_of_open_instruct() -> None:
    (vector,) = [v for v in VECTORS if v["kind"] == "ppo_clip"]
    ratio = torch.log(tensor(*vector["ratio"]))
    kept = keep_ppo(ratio, tensor(*vector["advantages"]), vector["clip_low"], vector["clip_high"]).keep
    assert (~kept).int().tolist() == vector["expected_clipped"]


def test_every_reference_vector_is_used_or_named() -> None:
    for vector in VECTORS:
        assert vector["id"] in COVERED or vector["kind"] in LATER, vector["id"]


def test_four_cells_by_hand() -> None:
    #            both keep, only first, only second, both, A = 0, unknown
    first = Decision(torch.tensor([True, False, True, False, True, False]), torch.tensor([True] * 5 + [False]))
    second = Decision(torch.tensor([True, True, False, False, True, True]), torch.tensor([True] * 6))
    cells = four_cells(
        first, second, tensor(1, 1, 1, -1, 0, 1), tensor(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), tensor(1, 2, 3, 4, 0, 9)
    )
    assert [cells[1][name].tokens for name in cells[1]] == [1, 1, 1, 0]
    assert [cells[-1][name].tokens for name in cells[-1]] == [0, 0, 0, 1]
    assert cells[0]["both_keep"].tokens == 1
    assert cells[1]["only_first_drops"].mass_moved == pytest.approx(0.2)
    assert cells[1]["only_second_drops"].gradient_weight == pytest.approx(3.0)


def test_gradient_weight_is_truncated_at_the_cap() -> None:
    weights = gradient_weight(torch.log(tensor(0.5, 4.0, 4.0)), tensor(2, -2, 2), cap=3.0)
    assert weights.tolist() == pytest.approx([1.0, 6.0, 6.0])

"""Vectors of other projects' own tests, each under the profile of its source."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dppo_core.divergence import binary_tv
from dppo_core.masks import gradient_weight
from dppo_core.methods.catalog import METHODS
from dppo_core.profiles import PROFILES
from dppo_core.tokens import TokenArrays

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "reference_vectors.json").read_text())["vectors"]
NAN = math.nan


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PROFILE_OF = {  # by how an id begins
    "trl": "trl",
    "oi": "open-instruct",
    "skyrl": "skyrl",
    "slimefork2": "stable-rl",  # "Stable-RL DPPO recipe"
    "slimefork": "slime",
    "rllm": "rllm",
}
MASKS = [v for v in VECTORS if v["kind"] in ("dppo_mask", "dppo_loss", "dppo_grad", "dppo_anchor_property")]
DIVERGENCES = [v for v in VECTORS if v["kind"] == "divergence"]
STANDS_FOR = {  # properties without numbers, and the test in this file that stands for each
    "trl_topk_tv_shape": "test_topk_within_the_threshold_keeps_every_token",
    "rllm_untruncated": "test_rllm_weighs_by_the_untruncated_ratio",
}
BY_ITSELF = {  # vectors of other methods, and their test in this file
    "oi1755_rho": "test_dppo_times_rho_of_open_instruct",
    "oi1755_icepop": "test_icepop_of_open_instruct",
    "oi1755_icepop_seq": "test_icepop_over_responses_of_open_instruct",
    "oi1755_vaco_tv": "test_vaco_of_open_instruct",
    "oi1755_vaco_kl": "test_vaco_of_open_instruct",
    "oi1755_ppo_clip": "test_ppo_clip_of_open_instruct",
    "oi1755_cispo": "test_cispo_of_open_instruct",
    "slimefork3_drpo_tv": "test_drpo_of_a_slime_fork",
}


def vector_of(name: str) -> dict[str, Any]:
    (found,) = [vector for vector in VECTORS if vector["id"] == name]
    return found


def profile_of(vector: dict[str, Any]) -> str:
    return next(profile for start, profile in PROFILE_OF.items() if vector["id"].startswith(start))


def logs(vector: dict[str, Any], name: str) -> torch.Tensor:
    """Log-probs of `mu` (in one vector `rollout`), `old` or `pi`, flat."""
    for key in (f"{name}_logprobs", "rollout_logprobs" if name == "mu" else ""):
        if key in vector:
            return tensor(*vector[key])
    return torch.log(torch.tensor(vector[f"{name}_probs"], dtype=torch.float64)).flatten()


def tokens_of(vector: dict[str, Any], **more: torch.Tensor) -> TokenArrays:
    """All tokens of a vector, padding included; one response for each row of a nested one."""
    advantage = torch.tensor(vector.get("advantages", [1.0] * len(logs(vector, "mu"))), dtype=torch.float64)
    rows, width = (1, len(advantage)) if advantage.dim() == 1 else advantage.shape
    return TokenArrays(
        advantage.flatten(), torch.arange(rows).repeat_interleave(width), **{"logp_rollout": logs(vector, "mu"), **more}
    )


def nested(values: list[Any]) -> list[float]:
    return torch.tensor(values, dtype=torch.float64).flatten().tolist()


@pytest.mark.parametrize("vector", MASKS, ids=lambda vector: str(vector["id"]))
def test_masks_of_other_implementations(vector: dict[str, Any]) -> None:
    parameters = {
        "delta_low": vector["delta_low"],
        "delta_high": vector["delta_high"],
        "weight_cap": vector.get("ratio_cap"),
        "profile": profile_of(vector),
    }
    some = tokens_of(vector, logp_new=logs(vector, "pi"))
    found = METHODS[f"dppo_{vector['variant']}_rollout"](some, **parameters)
    counted = [bool(keep) and bool(mask) for keep, mask in zip(found.keep, vector["response_mask"], strict=True)]
    named = ("expected_keep_mask", "derived_keep_mask", "derived_keep_mask_rollout_anchor")
    expected = next((vector[name] for name in named if vector.get(name) is not None), None)
    assert expected is not None or vector["kind"] == "dppo_grad"
    for kept, wanted in zip(counted, expected or [], strict=False):
        assert wanted is None or kept == bool(wanted)
    if "expected_clip_gt_zero" in vector:
        assert (not all(counted)) == vector["expected_clip_gt_zero"]
    if "expected_ratio" in vector:
        weight = gradient_weight(some.log_ratio("rollout"), torch.ones(len(counted)), vector.get("ratio_cap"))
        assert weight.tolist() == pytest.approx(vector["expected_ratio"])
    if "expected_pg_loss" in vector:  # −coef, times log π where the loss is written so
        written = -found.coef * (logs(vector, "pi") if "logp" in vector.get("note", "logp") else 1.0)
        assert written.tolist() == pytest.approx(vector["expected_pg_loss"])
    if "expected_grad_wrt_logp" in vector:
        assert (-found.coef).tolist() == pytest.approx(vector["expected_grad_wrt_logp"])
    if "expected_upper" in vector:
        upper, lower = (~found.keep & (some.advantage > 0)), (~found.keep & (some.advantage < 0))
        assert upper.int().tolist() == vector["expected_upper"]
        assert lower.int().tolist() == vector["expected_lower"]
    measured = some.divergence(vector["variant"][-2:], "binary", "rollout", profile_of(vector))
    if "expected_divergence" in vector:
        assert measured.tolist() == pytest.approx(vector["expected_divergence"], abs=vector["atol"])
    if "expected_divergence_gt" in vector:
        assert (measured > vector["expected_divergence_gt"]).all()
    if vector["kind"] == "dppo_anchor_property":
        both = tokens_of(vector, logp_old=tensor(*vector["old_logprobs"]), logp_new=logs(vector, "pi"))
        from_old = METHODS["dppo_binary_tv_old"](both, **parameters).keep
        assert from_old.int().tolist() == vector["derived_keep_mask_old_anchor"]


@pytest.mark.parametrize("vector", DIVERGENCES, ids=lambda vector: str(vector["id"]))
def test_divergences_of_other_implementations(vector: dict[str, Any]) -> None:
    counted = torch.tensor(vector["response_mask"], dtype=torch.bool)
    mu, pi = (torch.where(counted, logs(vector, name), NAN) for name in ("mu", "pi"))
    function = PROFILES[profile_of(vector)].binary_kl if vector["variant"] == "binary_kl" else binary_tv
    found = torch.where(counted, function(mu, pi), 0.0)
    for value, wanted in zip(found.tolist(), vector["expected_divergence"], strict=True):
        if wanted is None:
            assert value == pytest.approx(math.exp(-0.1) - math.exp(-2.0))
        else:
            assert value == pytest.approx(wanted, abs=vector["atol"])


def test_dppo_times_rho_of_open_instruct() -> None:
    vector = vector_of("oi1755_rho")
    some = tokens_of(vector, logp_old=logs(vector, "old"), logp_new=logs(vector, "pi"))
    parameters = {"delta_low": vector["delta_low"], "delta_high": vector["delta_high"]}
    found = METHODS["dppo_rho_binary_tv"](some, "open-instruct", **parameters)
    weights = found.coef / (some.log_ratio("old").exp() * some.advantage)
    assert weights.tolist() == pytest.approx(vector["expected_weights"])


def test_icepop_of_open_instruct() -> None:
    vector = vector_of("oi1755_icepop")
    rho = tensor(*vector["rho"])
    mu = logs(vector, "mu")
    some = tokens_of(vector, logp_old=mu + rho.log(), logp_new=mu + rho.log()).with_statistics(log_mismatch=rho.log())
    found = METHODS["icepop"](some, "open-instruct", lower=vector["lower"], upper=vector["upper"])
    assert found.coef.tolist() == pytest.approx(vector["expected_weights"])  # r′ = 1, A = 1
    assert (~found.keep & (rho < 1)).int().tolist() == vector["expected_drop_low"]
    assert (~found.keep & (rho > 1)).int().tolist() == vector["expected_drop_high"]


def test_icepop_over_responses_of_open_instruct() -> None:
    vector = vector_of("oi1755_icepop_seq")
    rho = torch.tensor(vector["rho"], dtype=torch.float64)
    mu = torch.full_like(rho, 0.2).log().flatten()
    old = mu + rho.log().flatten()
    some = TokenArrays(torch.ones(9), torch.arange(3).repeat_interleave(3), mu, old, old)
    found = METHODS["icepop_sequence"](some, "open-instruct", lower=vector["lower"], upper=vector["upper"])
    assert found.coef.tolist() == pytest.approx(nested(vector["expected_weights"]))


@pytest.mark.parametrize("name", ["oi1755_vaco_tv", "oi1755_vaco_kl"])
def test_vaco_of_open_instruct(name: str) -> None:
    vector = vector_of(name)
    kind = name[-2:]
    old = logs(vector, "old")
    some = tokens_of(vector, logp_old=old, logp_new=old)
    # the vector's weights are ρ itself, with the clamp wide open
    found = METHODS["vaco"](some, f"open-instruct-1755-{kind}", delta=vector["upper"], cap=None)
    weights = found.coef / some.advantage
    assert weights.tolist() == pytest.approx(nested(vector["expected_weights"]))
    mu = logs(vector, "mu")
    measured = binary_tv(mu, old) if kind == "tv" else PROFILES["open-instruct"].binary_kl(mu, old)
    assert measured.tolist() == pytest.approx(nested(vector["expected_divergence"]), abs=1e-6)


def test_ppo_clip_of_open_instruct() -> None:
    vector = vector_of("oi1755_ppo_clip")
    ratio = tensor(*vector["ratio"])
    some = TokenArrays(
        tensor(*vector["advantages"]), torch.zeros(3, dtype=torch.long), None, tensor(0, 0, 0), ratio.log()
    )
    found = METHODS["ppo_old"](some, eps_low=vector["clip_low"], eps_high=vector["clip_high"])
    assert (~found.keep).int().tolist() == vector["expected_clipped"]
    for kept, coef, loss in zip(found.keep, found.coef, vector["expected_pg_loss"], strict=True):
        # a clipped token's loss is the constant −(1 + ε)·A
        assert loss == pytest.approx(-coef.item() if kept else -(1 + vector["clip_high"]))


def test_cispo_of_open_instruct() -> None:
    vector = vector_of("oi1755_cispo")
    ratio = tensor(*vector["ratio"])
    some = TokenArrays(
        tensor(*vector["advantages"]), torch.zeros(3, dtype=torch.long), None, tensor(0, 0, 0), ratio.log()
    )
    found = METHODS["cispo"](some, "open-instruct", eps_high=vector["clip_high"])
    assert (-found.coef).tolist() == pytest.approx(vector["expected_grad_wrt_logp"])
    assert (found.coef < ratio - 1e-12).int().tolist() == vector["expected_clipped"]
    assert found.keep.all()


def test_drpo_of_a_slime_fork() -> None:
    vector = vector_of("slimefork3_drpo_tv")
    some = tokens_of(vector, logp_new=logs(vector, "pi"))
    found = METHODS["drpo"](some, delta_low=vector["eps_low"], delta_high=vector["eps_high"])
    assert (~found.keep).int().tolist() == vector["expected_tv_violation"]
    # the gradient of its loss −A·r + |A|·μ·(r − 1)²/(2ε) with respect to log π
    logp = logs(vector, "pi").requires_grad_()
    ratio, advantage = (logp - logs(vector, "mu")).exp(), some.advantage
    eps = torch.where(advantage > 0, vector["eps_high"], vector["eps_low"])
    loss = -advantage * ratio + advantage.abs() * logs(vector, "mu").exp() * (ratio - 1.0) ** 2 / (2.0 * eps)
    loss.sum().backward()
    assert logp.grad is not None
    assert (-found.coef).tolist() == pytest.approx(logp.grad.tolist())


def test_topk_within_the_threshold_keeps_every_token() -> None:
    # trl_topk_tv_shape: μ = .30 → π = .31 in both tokens, δ .2 and .28; its random lists stay within them
    some = TokenArrays(
        tensor(1, 1), torch.zeros(2, dtype=torch.long), tensor(0.3, 0.3).log(), None, tensor(0.31, 0.31).log()
    )
    some = some.with_statistics(tv_topk_rollout=tensor(0.01, 0.28))
    found = METHODS["dppo_topk_tv_rollout"](some, "trl", delta_low=0.2, delta_high=0.28)
    assert found.keep.tolist() == [True, True]


def test_rllm_weighs_by_the_untruncated_ratio() -> None:
    # log μ = −6, A = −1 and π = .2: moves toward μ's ratio 1, so it is kept, with r = .2·e⁶ ≈ 80.7 untruncated
    some = TokenArrays(tensor(-1), torch.zeros(1, dtype=torch.long), tensor(-6.0), None, tensor(0.2).log())
    found = METHODS["dppo_binary_tv_rollout"](some, "rllm")
    assert found.coef.tolist() == pytest.approx([-0.2 * math.exp(6)])


def test_every_reference_vector_has_its_test() -> None:
    tested = {v["id"] for v in MASKS + DIVERGENCES} | set(STANDS_FOR) | set(BY_ITSELF)
    assert {v["id"] for v in VECTORS} == tested
    for name in (*STANDS_FOR.values(), *BY_ITSELF.values()):
        assert callable(globals()[name])
    assert {v["id"] for v in VECTORS if v["kind"] in ("dppo_mask_property", "dppo_loss_property")} == set(STANDS_FOR)

"""Single tokens worked by hand from the published equations, boundaries, and the vectors of other projects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dppo_core import losses
from dppo_core.divergence import topk_kl, topk_tv
from dppo_core.losses import PolicyLoss

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "reference_vectors.json").read_text())["vectors"]


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def run(
    function: Callable[..., PolicyLoss], logp: Tensor, *inputs: Tensor, **options: Any
) -> tuple[list[float], float]:
    """−gradient × N per token, and loss × N, of a batch of one response without padding."""
    logp = logp.clone().requires_grad_()
    result = function(logp, *inputs, torch.ones_like(logp), aggregation="token-mean", **options)
    result.loss.backward()
    assert logp.grad is not None
    return (-logp.grad[0] * logp.numel()).tolist(), result.loss.item() * logp.numel()


# PPO


def test_ppo_at_its_boundaries_keeps_the_gradient() -> None:
    up, down = math.log(1.28), math.log(0.8)
    logp = row(up, up + 1e-9, down, down - 1e-9)
    coef, value = run(losses.ppo_loss, logp, torch.zeros(1, 4), row(2, 2, -1, -1))
    # A = 2: r·A = 2.56 at the tie, 0 beyond; A = −1: r·A = −.8 at the tie, 0 beyond
    assert coef == pytest.approx([2.56, 0.0, -0.8, 0.0], rel=1e-12)
    assert coef[1] == coef[3] == 0
    assert value == pytest.approx(-(2.56 + 2.56 - 0.8 - 0.8))  # −clip(r)·A on both sides of the boundary


def test_ppo_never_drops_a_move_back() -> None:
    coef, value = run(losses.ppo_loss, torch.log(row(0.5, 2.0)), torch.zeros(1, 2), row(1, -1))
    assert coef == pytest.approx([0.5, -2.0])
    assert value == pytest.approx(-0.5 + 2.0)


def test_dual_clip_holds_the_loss_of_bad_tokens() -> None:
    at = math.log(3.0)
    coef, value = run(losses.ppo_loss, row(at, at + 1e-9, 2 * at), torch.zeros(1, 3), row(-1, -1, -1), dual_clip=3.0)
    # −max(r·A, c·A) = 3 from r = 3 on; the gradient −r·A = 3 at r = 3 itself, 0 beyond
    assert coef == pytest.approx([-3.0, 0.0, 0.0])
    assert value == pytest.approx(9.0)


def test_zero_advantage_has_no_gradient_and_is_kept() -> None:
    result = losses.ppo_loss(row(0.0, 0.0), row(-5.0, -0.1), row(0.0, 1.0), row(1.0, 1.0))
    assert result.keep.tolist() == [[True, True]]
    assert result.decided.tolist() == [[False, True]]
    assert result.drop_rate == 0


# DPPO


@pytest.mark.parametrize("eps", [0.1, 0.2])
def test_dppo_with_the_ratio_s_distance_is_ppo(eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logp, anchor = (torch.log(torch.rand(8, 16, generator=generator, dtype=torch.float64)) for _ in range(2))
    advantage = torch.randn(8, 16, generator=generator, dtype=torch.float64)
    mask = torch.ones(8, 16)
    ppo = losses.ppo_loss(logp, anchor, advantage, mask, eps_low=eps, eps_high=1.5 * eps)
    distance = ((logp - anchor).exp() - 1).abs()
    dppo = losses.dppo_loss(logp, anchor, advantage, mask, divergence=distance, delta_low=eps, delta_high=1.5 * eps)
    assert torch.equal(dppo.coef, ppo.coef)
    assert 0.2 < ppo.drop_rate < 0.8


def test_dppo_at_its_threshold_keeps() -> None:
    # TV = |.5 − .25| = .25, exactly representable
    logp, mu = torch.log(row(0.5, 0.25)), torch.log(row(0.25, 0.5))
    exact = row(0.25, 0.25)
    coef, _ = run(losses.dppo_loss, logp, mu, row(1, -1), divergence=exact, delta_low=0.25, delta_high=0.25)
    assert coef == pytest.approx([2.0, -0.5])
    coef, _ = run(losses.dppo_loss, logp, mu, row(1, -1), divergence=exact, delta_low=0.2499, delta_high=0.2499)
    assert coef == [0.0, 0.0]


def test_the_paper_s_two_tokens() -> None:
    """1e-4 → 1e-2: r = 100, TV .0099: PPO drops, DPPO keeps. .99 → .80: r = .808, TV .19: the other way round."""
    logp, mu, advantage = torch.log(row(1e-2, 0.80)), torch.log(row(1e-4, 0.99)), row(1, -1)
    assert run(losses.ppo_loss, logp, mu, advantage)[0] == pytest.approx([0.0, -0.80 / 0.99])
    assert run(losses.dppo_loss, logp, mu, advantage)[0] == pytest.approx([100.0, 0.0])
    assert run(losses.dppo_loss, logp, mu, advantage, weight_cap=5.0)[0] == pytest.approx([5.0, 0.0])


def test_a_divergence_that_is_not_known_is_never_kept() -> None:
    result = losses.dppo_loss(row(-1.0), row(-1.0), row(1.0), row(1.0), divergence=row(math.nan))
    assert result.loss.isnan()


def test_other_divergences_have_no_name() -> None:
    with pytest.raises(ValueError, match="pass other divergences as a tensor"):
        losses.dppo_loss(row(-1.0), row(-1.0), row(1.0), row(1.0), divergence="topk_tv")  # type: ignore[arg-type]


def test_top_k_divergences_in_a_training_step() -> None:
    """The anchor's list: two tokens and the rest. (.6, .3, .1) → (.5, .2, .3): TV = ½(.1 + .1 + .2) = .2."""
    anchor, now = torch.log(torch.tensor([[[0.6, 0.3]]])), torch.log(torch.tensor([[[0.5, 0.2]]]))
    rest = (torch.log(torch.tensor([[0.1]])), torch.log(torch.tensor([[0.3]])))
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    tv, kl = topk_tv(anchor, now, valid, *rest), topk_kl(anchor, now, valid, *rest)
    assert tv.item() == pytest.approx(0.2, abs=1e-7)
    # KL = .6 ln 1.2 + .3 ln 1.5 + .1 ln(1/3) = .10939 + .12164 − .10986 = .12117
    assert kl.item() == pytest.approx(0.12117, abs=1e-5)
    sampled = (torch.log(row(0.5)), torch.log(row(0.6)), row(-1.0))
    assert run(losses.dppo_loss, *sampled, divergence=tv)[0] == [0.0]
    assert run(losses.dppo_loss, *sampled, divergence=tv, delta_low=0.25)[0] == pytest.approx([-5 / 6])
    assert run(losses.dppo_loss, *sampled, divergence=kl, delta_low=0.05)[0] == [0.0]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["kind"] in ("dppo_loss", "dppo_grad")], ids=lambda v: v["id"]
)
def test_dppo_of_other_implementations(vector: dict[str, Any]) -> None:
    def logs(name: str) -> Tensor:
        probs = vector.get(f"{name}_probs")
        return row(*vector[f"{name}_logprobs"]) if probs is None else torch.log(row(*probs))

    mu, pi, advantage = logs("mu"), logs("pi"), row(*vector["advantages"])
    coef, value = run(
        losses.dppo_loss,
        pi,
        mu,
        advantage,
        delta_low=vector["delta_low"],
        delta_high=vector["delta_high"],
        weight_cap=vector.get("ratio_cap"),
    )
    if "expected_grad_wrt_logp" in vector:
        assert [-c for c in coef] == pytest.approx(vector["expected_grad_wrt_logp"])
    if "expected_pg_loss" in vector and "logp" in vector.get("note", "logp"):
        assert value == pytest.approx(sum(vector["expected_pg_loss"]))
    elif "expected_pg_loss" in vector:  # their loss is −A·r·mask: its gradient is ours
        assert [-c for c in coef] == pytest.approx(vector["expected_pg_loss"])


# the others


def test_cispo_of_open_instruct() -> None:
    (vector,) = [v for v in VECTORS if v["kind"] == "cispo_clip"]
    coef, _ = run(losses.cispo_loss, torch.log(row(*vector["ratio"])), torch.zeros(1, 3), row(*vector["advantages"]))
    assert [-c for c in coef] == pytest.approx(vector["expected_grad_wrt_logp"])


def test_drpo_by_hand() -> None:
    (vector,) = [v for v in VECTORS if v["kind"] == "drpo_loss"]
    pi, mu, advantage = row(*vector["pi_probs"]), row(*vector["mu_probs"]), row(*vector["advantages"])
    coef, value = run(losses.drpo_loss, torch.log(pi), torch.log(mu), advantage, delta_low=0.1, delta_high=0.1)
    # μ .2 → .35, A = 1: r = 1.75, r·A·(1 − .15/.1) = −.875; loss −1.75 + .2·.75²/.2 = −1.1875
    # μ .6 → .3, A = −2: r = .5, −1·(1 − .3/.1) = 2; loss 1 + 2·.6·.25/.2 = 2.5
    # μ .5 → .55, A = .5: r = 1.1, .55·(1 − .05/.1) = .275; loss −.55 + .5·.5·.01/.2 = −.5375
    # μ .5 → .45, A = −.5: r = .9, −.45·(1 − .05/.1) = −.225; loss .45 + .0125 = .4625
    assert coef == pytest.approx([-0.875, 2.0, 0.275, -0.225])
    assert value == pytest.approx(-1.1875 + 2.5 - 0.5375 + 0.4625)
    # moving back (A = 1, .5 → .45): .9·(1 + .05/.1) = 1.35
    assert run(losses.drpo_loss, torch.log(row(0.45)), torch.log(row(0.5)), row(1.0), delta_low=0.1, delta_high=0.1)[
        0
    ] == pytest.approx([1.35])


def test_drpo_turns_round_at_delta() -> None:
    logp, mu = torch.log(row(0.75, 0.25)), torch.log(row(0.5, 0.5))
    coef, _ = run(losses.drpo_loss, logp, mu, row(1, -1), delta_low=0.5, delta_high=0.25)
    # A < 0, |π−μ| = .25, δ_low = .5: −.5·(1 − ½)
    assert coef == pytest.approx([0.0, -0.25], abs=1e-15)
    turned = losses.drpo_loss(logp, mu, row(1, -1), row(1, 1), delta_low=0.2, delta_high=0.2)
    assert not turned.keep.any()
    assert turned.drop_rate == 1


def test_sapo_by_hand() -> None:
    coef, value = run(losses.sapo_loss, torch.log(row(1.0, 0.5)), torch.log(row(1.0, 1.0)), row(1.0, -2.0))
    # r = 1: σ = ½, 4·¼·1·1 = 1, loss −4·½ = −2. r = .5, τ = 1.05: σ(−.525) = .371683,
    # 4·.371683·.628317·.5·(−2) = −.934139; loss 4/1.05·.371683·2 = 2.831871
    assert coef == pytest.approx([1.0, -0.934139], abs=1e-5)
    assert value == pytest.approx(-2.0 + 2.831871, abs=1e-5)


def test_sapo_of_an_infinite_ratio_is_closed() -> None:
    coef, value = run(losses.sapo_loss, row(-0.1), row(-800.0), row(1.0))
    assert coef == [0.0]
    assert value == pytest.approx(-4.0)  # σ = 1


def test_gspo_clips_a_response_as_a_whole() -> None:
    # log r′ = .3 and −.29: mean .005, s = 1.00501, beyond 1 + 4e-4: both dropped, though token 2 alone is below 1
    old = row(0.0, 0.0)
    assert run(losses.gspo_loss, row(0.3, -0.29), old, row(1, 1))[0] == [0.0, 0.0]
    # mean −.005: s = .995012, moves back for A > 0: both keep s·A
    assert run(losses.gspo_loss, row(0.29, -0.3), old, row(1, 1))[0] == pytest.approx([0.9950125] * 2)
    coef, value = run(losses.gspo_loss, row(0.29, -0.3), old, row(-1, -1))
    assert coef == [0.0, 0.0]
    assert value == pytest.approx(2 * 0.9997)  # −clip(s)·A for each token


def test_minirl_masks_from_old_and_weighs_from_rollout() -> None:
    logp, old, rollout = torch.log(row(0.5, 0.5)), torch.log(row(0.5, 0.25)), torch.log(row(0.05, 0.4))
    # token 1: r′ = 1 kept, r = 10; token 2: r′ = 2 dropped for A > 0
    assert run(losses.minirl_loss, logp, old, rollout, row(1, 1))[0] == pytest.approx([10.0, 0.0])
    assert run(losses.minirl_loss, logp, old, rollout, row(1, 1), weight_cap=5.0)[0] == pytest.approx([5.0, 0.0])


def test_pg_is_is_untruncated_and_pg_tis_is_not() -> None:
    logp, rollout, advantage = torch.log(row(0.8, 0.2)), torch.log(row(0.1, 0.4)), row(-1, 2)
    assert run(losses.pg_is_loss, logp, rollout, advantage)[0] == pytest.approx([-8.0, 1.0])
    coef, value = run(losses.pg_tis_loss, logp, rollout, advantage, weight_cap=3.0)
    assert coef == pytest.approx([-3.0, 1.0])
    assert value == pytest.approx(3 * math.log(0.8) - math.log(0.2))


def test_cppo_spends_a_budget() -> None:
    """δ = .15, w_min = .5, δ_b held to .02, three tokens of D = .1, .1, .15, all moving away.

    w = 1, .75, .5; w·D = .1, .075, .075. c_1 = .15: keep. c_2 = .15 + .02·1 − .1 = .07 < .075: drop.
    c_3 = .15 + .02·1.75 − .175 = .01 < .075: drop (what was dropped is spent as well).
    """
    mu = row(0.5, 0.5, 0.5)
    options = {"w_min": 0.5, "budget_min": 0.02, "budget_max": 0.02}
    coef, _ = run(losses.cppo_loss, torch.log(row(0.6, 0.6, 0.65)), torch.log(mu), row(1, 1, 1), **options)
    assert coef == pytest.approx([1.2, 0.0, 0.0])
    # a token that moves back is kept however much was spent
    coef, _ = run(losses.cppo_loss, torch.log(row(0.6, 0.6, 0.65)), torch.log(mu), row(1, 1, -1), **options)
    assert coef == pytest.approx([1.2, 0.0, -1.3])
    # one token: w_1 = 1 (Eq. 9), so D = .17 > .15 drops
    coef, _ = run(losses.cppo_loss, torch.log(row(0.67)), torch.log(row(0.5)), row(1.0), **options)
    assert coef == [0.0]


def test_cppo_calibrates_its_budget_on_the_response() -> None:
    """16 tokens, w = 1, δ = .05: x, thirteen times .02, .034, .03. Rank .9·15 = 13.5 lies between .03 and .034 (x is
    the largest): δ_b = .032. c_16 = .05 + 15·.032 − (x + .26 + .034) = .236 − x, so the last is kept iff x ≤ .206."""
    for x, kept in ((0.2055, True), (0.2065, False)):
        d = row(x, *[0.02] * 13, 0.034, 0.03)
        options = {"delta": 0.05, "w_min": 1.0, "budget_min": 0.0, "budget_max": 1.0}
        coef, _ = run(losses.cppo_loss, torch.log(0.5 + d), torch.log(0.5 + 0 * d), row(*[1.0] * 16), **options)
        assert (coef[-1] != 0) == kept
        assert coef[0] == 0


def test_cppo_with_one_horizon_and_a_fixed_budget() -> None:
    """T = 11 for a response of two tokens, w_min = .5: w = 1, .95. D = .15, .1; c_2 = .15 + δ_b − .15 = δ_b, and
    w·D = .095: δ_b = .094 drops, .096 keeps."""
    logp, mu = torch.log(row(0.65, 0.6)), torch.log(row(0.5, 0.5))
    for budget, last in ((0.094, 0.0), (0.096, 1.2)):
        options = {"w_min": 0.5, "horizon": 11, "budget": budget, "delta": 0.15 + 1e-12}
        assert run(losses.cppo_loss, logp, mu, row(1, 1), **options)[0] == pytest.approx([1.3, last])


def test_gbpo_target_by_hand() -> None:
    reward, group = torch.tensor([0.0, 1.0, 1.0, 5.0]), torch.tensor([7, 7, 7, 9])
    target, advantage = losses.gbpo_target(reward, group, eps_low=0.2, eps_high=0.3, scale="none")
    # median 1, mean 2/3: r* = .8 + .5·σ(R − 1): σ(−1) = .268941, σ(0) = .5; alone: median and mean 0, σ(5) = .993307
    assert target[:, 0].tolist() == pytest.approx([0.9344707, 1.05, 1.05, 1.2966536])
    assert advantage[:, 0].tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3, 5.0])
    target, advantage = losses.gbpo_target(reward, group)
    # s = √((4/9 + 1/9 + 1/9)/2) = √(1/3) = .577350: A = −1.154699, r* = .8 + .4·σ(−1.732048) = .8 + .4·.150320
    assert advantage[0, 0].item() == pytest.approx(-1.154698, abs=1e-5)
    assert target[0, 0].item() == pytest.approx(0.860128, abs=1e-5)


def test_gbpo_pulls_toward_its_target_from_both_sides() -> None:
    logp = torch.log(row(0.9, 1.0, 0.95))
    coef, value = run(losses.gbpo_loss, logp, torch.zeros(1, 3), row(0.95, 0.95, 0.95), row(-2.0, -2.0, 0.0))
    # r = .9 below .95: +.9·2, r = 1 above: −1·2, A = 0: nothing; loss .05·2 + .05·2
    assert coef == pytest.approx([1.8, -2.0, 0.0])
    assert value == pytest.approx(0.2)

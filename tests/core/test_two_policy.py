"""The fast path against the slow float64 reference, and the order binary ≤ top-K ≤ exact up to extreme logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dppo_core.reference import reference_token
from dppo_core.two_policy import TwoPolicyScorer, TwoPolicyStats, rows_of

TV, KL = 1e-7, 1e-6  # float32 row sums on extreme logits; ordinary ones are ten times better


def score(old: torch.Tensor, new: torch.Tensor, sampled: torch.Tensor, **options: object) -> TwoPolicyStats:
    scorer = TwoPolicyScorer(old.shape[1], chunk_rows=16, **options)  # type: ignore[arg-type]
    return scorer.score(rows_of(old), rows_of(new), sampled)


def assert_matches(
    old: torch.Tensor, new: torch.Tensor, sampled: torch.Tensor, tv: float, kl: float, **options: object
) -> None:
    stats = score(old, new, sampled, **options)
    for row in range(old.shape[0]):
        reference = reference_token(old[row], new[row], int(sampled[row]), **options)  # type: ignore[arg-type]
        for name, expected in reference.items():
            found = float(getattr(stats, name)[row])
            limit = kl * max(1.0, expected) if "kl" in name else tv
            if name.startswith(("entropy", "logp")):
                limit = 1e-6
            assert found == pytest.approx(expected, abs=limit), f"{name} of row {row}"


def assert_ordered(stats: TwoPolicyStats) -> None:
    assert (stats.tv_binary <= stats.tv_topk).all()
    assert (stats.tv_topk <= stats.tv_exact).all()
    assert (stats.kl_binary <= stats.kl_topk).all()
    assert (stats.kl_topk <= stats.kl_exact).all()
    assert (stats.tv_exact**2 <= 0.5 * stats.kl_exact + 1e-6).all()  # Pinsker


@pytest.mark.parametrize("mode", ["paper", "slots"])
@pytest.mark.parametrize(
    ("vocab", "scale", "step", "temperature"),
    [
        (500, 5.0, 0.3, 1.0),
        (4097, 3.0, 0.05, 0.7),
        (2000, 20.0, 1e-4, 1.3),
        (5, 2.0, 0.5, 1.0),
        (21, 2.0, 0.5, 1.0),
        (16_451, 4.0, 0.1, 1.0),
    ],
)
def test_against_the_reference(vocab: int, scale: float, step: float, temperature: float, mode: str) -> None:
    generator = torch.Generator().manual_seed(vocab)
    rows = 24 if vocab < 10_000 else 4
    old = scale * torch.randn(rows, vocab, generator=generator)
    new = old + step * torch.randn(rows, vocab, generator=generator)
    sampled = torch.multinomial(torch.softmax(old / temperature, 1), 1, generator=generator).squeeze(1)
    assert_matches(old, new, sampled, 1e-8, 1e-7, topk_mode=mode, temperature=temperature)
    assert_ordered(score(old, new, sampled, topk_mode=mode, temperature=temperature))


def test_unrelated_extreme_policies() -> None:
    generator = torch.Generator().manual_seed(1)
    old, new = (120 * torch.rand(24, 3000, generator=generator) - 60 for _ in range(2))
    sampled = torch.randint(0, 3000, (24,), generator=generator)
    assert_matches(old, new, sampled, TV, KL)
    assert_ordered(score(old, new, sampled))


def test_ties_at_the_boundary_go_to_the_lower_id() -> None:
    old = torch.zeros(1, 300)
    old[0, 40:80] = 2.0  # forty ids tie for twenty places: 40 … 59 are in, 60 … 79 are not
    new = old.clone()
    new[0, 59] += 1.0
    inside = score(old, new, torch.tensor([40]))
    new = old.clone()
    new[0, 60] += 1.0
    outside = score(old, new, torch.tensor([40]))
    z = 40 * math.exp(2) + 260
    shifted = z - math.exp(2) + math.exp(3)
    assert inside.topk_mass_old.item() == pytest.approx(20 * math.exp(2) / z)
    # A' moved: 19 entries lose, one gains. tv over A' + rest = mass gained by id 59
    assert inside.tv_topk.item() == pytest.approx(math.exp(3) / shifted - math.exp(2) / z)
    # id 60 lies in the rest, which gains what the twenty lose
    assert outside.tv_topk.item() == pytest.approx(20 * math.exp(2) * (1 / z - 1 / shifted))


def test_slots_replace_the_kth_entry_and_paper_adds_one() -> None:
    old = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]])
    z = sum(math.exp(x) for x in range(5))
    paper = score(old, old, torch.tensor([4]), top_k=2)
    slots = score(old, old, torch.tensor([4]), top_k=2, topk_mode="slots")
    assert paper.topk_mass_old.item() == pytest.approx((math.exp(4) + math.exp(3) + 1) / z)
    assert slots.topk_mass_old.item() == pytest.approx((math.exp(4) + 1) / z)


def test_slots_take_the_higher_of_two_equal_ids_as_the_kth() -> None:
    old = torch.tensor([[4.0, 3.0, 3.0, 1.0, 0.0]])  # top-3 is {0, 1, 2}; id 2 is third and makes room for id 4
    new = old.clone()
    new[0, 2] += 1.0
    stats = score(old, new, torch.tensor([4]), top_k=3, topk_mode="slots")
    z_old = sum(math.exp(x) for x in (4, 3, 3, 1, 0))
    assert stats.topk_mass_old.item() == pytest.approx((math.exp(4) + math.exp(3) + 1) / z_old)
    assert stats.topk_mass_new.item() == pytest.approx(
        (math.exp(4) + math.exp(3) + 1) / (z_old - math.exp(3) + math.exp(4))
    )


def test_identical_policies_do_not_differ() -> None:
    logits = 8 * torch.randn(8, 1000, generator=torch.Generator().manual_seed(0))
    stats = score(logits, logits.clone(), torch.arange(8))
    for name in ("tv_binary", "kl_binary", "tv_topk", "kl_topk", "tv_exact", "kl_exact"):
        assert (getattr(stats, name) == 0).all(), name


def test_a_support_is_gathered_without_one_minus_sum() -> None:
    generator = torch.Generator().manual_seed(2)
    old, new = 4 * torch.randn(6, 700, generator=generator), 4 * torch.randn(6, 700, generator=generator)
    support = torch.stack([torch.randperm(700, generator=generator)[:9] for _ in range(6)])
    support[0, 5:] = -1
    sampled = torch.randint(0, 700, (6,), generator=generator)
    stats = TwoPolicyScorer(700).score(rows_of(old), rows_of(new), sampled, support)
    for logits, found, rest in (
        (old, stats.support_logp_old, stats.support_rest_old),
        (new, stats.support_logp_new, stats.support_rest_new),
    ):
        logp = torch.log_softmax(logits.double(), 1)
        for row in range(6):
            ids = [int(token) for token in support[row] if token >= 0]
            others = [token for token in range(700) if token not in ids]
            assert found[row, : len(ids)].tolist() == pytest.approx(logp[row, ids].tolist(), abs=1e-7)
            assert torch.isnan(found[row, len(ids) :]).all()
            assert rest[row].item() == pytest.approx(torch.logsumexp(logp[row, others], 0).item(), abs=1e-7)


def test_minus_infinity_logits_have_no_mass() -> None:
    old = torch.randn(4, 400, generator=torch.Generator().manual_seed(3))
    old[:, 200:] = -math.inf
    new = old.clone()
    new[:, 0] += 1.0
    assert_matches(old.clamp(min=-1e4), new.clamp(min=-1e4), torch.zeros(4, dtype=torch.long), TV, KL)
    stats = score(old, new, torch.zeros(4, dtype=torch.long))
    assert torch.isfinite(stats.kl_exact).all()
    gone = old.clone()
    gone[:, 5] = -math.inf
    assert (score(old, gone, torch.zeros(4, dtype=torch.long)).kl_exact == math.inf).all()


def test_nan_logits_are_named() -> None:
    logits = torch.zeros(20, 50)
    logits[17, 3] = math.nan
    with pytest.raises(ValueError, match="row 17"):
        score(torch.zeros(20, 50), logits, torch.zeros(20, dtype=torch.long))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"top_k": 0}])
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        TwoPolicyScorer(10, **options)  # type: ignore[arg-type]


def test_no_tokens() -> None:
    stats = score(torch.zeros(0, 10), torch.zeros(0, 10), torch.zeros(0, dtype=torch.long))
    assert stats.tv_exact.shape == (0,)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocab=st.sampled_from([33, 700, 5_003, 50_257]),
    scale=st.floats(0.01, 60),
    step=st.floats(0, 60),
    kind=st.sampled_from(["gauss", "uniform", "topk", "rounded"]),
)
def test_order_holds_up_to_extreme_logits(seed: int, vocab: int, scale: float, step: float, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 3
    old = (scale * torch.randn(rows, vocab, generator=generator)).clamp(-60, 60)
    if kind == "uniform":
        old = scale * (2 * torch.rand(rows, vocab, generator=generator) - 1)
    if kind == "rounded":
        old = old.to(torch.bfloat16).float()
    new = old.clone()
    if kind == "topk":  # the two policies differ on the old top-20 only
        ids = old.topk(min(20, vocab), 1).indices
        new.scatter_add_(1, ids, step * torch.randn(rows, ids.shape[1], generator=generator))
    else:
        new = new + step * torch.randn(rows, vocab, generator=generator)
    new = new.clamp(-60, 60)
    sampled = torch.randint(0, vocab, (rows,), generator=generator)
    assert_ordered(score(old, new, sampled))
    logp, logq = torch.log_softmax(old.double(), 1), torch.log_softmax(new.double(), 1)
    exact = 0.5 * (logp.exp() - logq.exp()).abs().sum(1)
    divergence = (logp.exp() * (logp - logq)).sum(1)
    stats = score(old, new, sampled)
    assert ((stats.tv_exact - exact).abs() <= TV).all()
    assert ((stats.kl_exact - divergence).abs() <= 3 * KL * divergence.clamp(min=1)).all()

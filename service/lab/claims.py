"""The paper's claims (arXiv:2602.04879), as statements that runs or tokens can bear out or not at this size.

A statement is about a difference d whose sign the claim names. Seen: d has that sign, and Holm's p over all statements
from runs is below .05 (from tokens: the bootstrap interval lies on that side). Not seen: the 95 % interval lies on the
other side of 0, or within ± the margin of practical equivalence. Undecided: everything else. A claim is seen where all
its statements are, not seen where one of them is not, and else undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dppo_core.lab.statistics import Estimate, holm
from service.lab.outcomes import Results
from service.lab.plan import arm

__all__ = ["CLAIMS", "Judged", "Statement", "Verdict", "judge"]

Verdict = Literal["seen", "not seen", "undecided"]
MARGIN = {"final": 0.03, "auc": 0.02, "drift": 0.002, "drift_change": 0.002, "entropy": 0.05, "bad_update": 0.001}
"""Smaller differences do not matter in practice: declared, not derived."""
MARGIN_EXTREME = 0.02  # of max_dp and min_dp

BAD_SHARE = 0.005  # C5: bad updates are at most this share


@dataclass(frozen=True)
class Statement:
    """`sign`·(arm − reference) > 0 by an outcome of runs; or, with `measured`, sign·(a token-level statistic) > 0.

    reference None: the arm's own value against `against`.
    """

    text: str
    sign: int
    arm: str = ""
    reference: str | None = None
    outcome: str = ""
    against: float = 0.0
    measured: str = ""


MINIRL_MU = arm("minirl", old_policy="rollout")
TV_OLD_MU = arm("dppo_binary_tv_old", old_policy="rollout")
TV = "dppo_binary_tv"

CLAIMS: dict[str, tuple[str, tuple[Statement, ...]]] = {
    "C1": (
        "The ratio is volatile where μ is small, the TV is not",
        (
            Statement("sd of log ρ at μ < .1 over that at μ ≥ .9, log", 1, measured="log_sd_ratio"),
            Statement("mean |π − μ| at μ < .01 minus that of all tokens", -1, measured="tv_rare"),
        ),
    ),
    "C2": (
        "Mismatch grows where training is unstable and falls under DPPO",
        (
            Statement("DPPO: |π − μ| late minus early", -1, TV, None, "drift_change"),
            Statement("PG-IS minus DPPO: that change", 1, "pg_is", TV, "drift_change"),
        ),
    ),
    "C3": (
        "Extremes of π − μ are larger without a trust region",
        (
            Statement("PG-IS minus DPPO: largest π − μ", 1, "pg_is", TV, "max_dp"),
            Statement("PG-IS minus DPPO: smallest π − μ", -1, "pg_is", TV, "min_dp"),
        ),
    ),
    "C4": (
        "The recompute anchor lets mismatch grow (π_old at μ's weights, as in the paper)",
        (
            Statement("MiniRL minus GRPO: |π − μ|", 1, MINIRL_MU, "grpo", "drift"),
            Statement("DPPO from π_old minus from μ: |π − μ|", 1, TV_OLD_MU, TV, "drift"),
        ),
    ),
    "C4, current": (
        "The same with π_old recomputed at the iteration's start",
        (
            Statement("MiniRL minus GRPO: |π − μ|", 1, "minirl", "grpo", "drift"),
            Statement("DPPO from π_old minus from μ: |π − μ|", 1, "dppo_binary_tv_old", TV, "drift"),
        ),
    ),
    "C5, rare": (
        "Bad updates are at most .5 % of the tokens under DPPO",
        (Statement("DPPO: share of bad updates minus .5 %", -1, TV, None, "bad_update", BAD_SHARE),),
    ),
    "C5, causal": (
        "Masking bad updates alone stabilises",
        (
            Statement("bad-update mask minus PG-IS: final reward", 1, "bad_update", "pg_is", "final"),
            Statement("bad-update mask minus PG-IS: |π − μ|", -1, "bad_update", "pg_is", "drift"),
        ),
    ),
    "C6, rare tokens": (
        "Truncation at C hits rare tokens",
        (Statement("P(μ < .1 | r > 3) minus P(μ < .1)", 1, measured="truncated_rare"),),
    ),
    "C6, harm": (
        "Truncated weights train worse",
        (
            Statement("MiniRL minus MiniRL-TIS: final reward", 1, "minirl", "minirl_tis", "final"),
            Statement("PG-IS minus PG-TIS: final reward", 1, "pg_is", "pg_tis", "final"),
        ),
    ),
    "C7": (
        "PPO clips tokens of low probability and high entropy",
        (
            Statement("mean μ of what PPO drops minus that of all", -1, measured="clipped_probability"),
            Statement("mean entropy of what PPO drops minus that of all, nats", 1, measured="clipped_entropy"),
        ),
    ),
    "C12": (
        "GRPO keeps a higher entropy than DPPO",
        (Statement("GRPO minus DPPO: late entropy, nats", 1, "grpo", TV, "entropy"),),
    ),
    "stability": (
        "A trust region on the divergence is more stable than ratio clipping",
        (Statement("GRPO minus DPPO: |π − μ|", 1, "grpo", TV, "drift"),),
    ),
    "efficiency": (
        "… and more efficient",
        (
            Statement("DPPO minus GRPO: reward over the run", 1, TV, "grpo", "auc"),
            Statement("DPPO minus GRPO: final reward", 1, TV, "grpo", "final"),
        ),
    ),
    "trust region": (
        "A trust region matters under stale data at all",
        (
            Statement("DPPO minus PG-IS: final reward", 1, TV, "pg_is", "final"),
            Statement("PG-IS minus DPPO: |π − μ|", 1, "pg_is", TV, "drift"),
        ),
    ),
}


@dataclass(frozen=True)
class Judged:
    """A statement with its estimate, Holm's p where it is from runs, and a verdict; None where runs are missing."""

    claim: str
    statement: Statement
    estimate: Estimate | None
    p_holm: float | None
    verdict: Verdict | None


def judge(results: Results, tokens: dict[str, Estimate]) -> tuple[list[Judged], dict[str, Verdict | None]]:
    """Every statement, and the verdict on every claim."""
    rows = [(claim, each, _estimate(each, results, tokens)) for claim, (_, all_) in CLAIMS.items() for each in all_]
    tested = {
        str(place): found.p for place, (_, _, found) in enumerate(rows) if found is not None and found.p is not None
    }
    adjusted = holm(tested)
    judged = []
    for place, (claim, each, found) in enumerate(rows):
        p = adjusted.get(str(place))
        judged.append(Judged(claim, each, found, p, None if found is None else _verdict(each, found, p)))
    verdicts: dict[str, Verdict | None] = {}
    for claim in CLAIMS:
        of_claim = [each.verdict for each in judged if each.claim == claim]
        verdicts[claim] = None if None in of_claim else _together([v for v in of_claim if v is not None])
    return judged, verdicts


def _estimate(each: Statement, results: Results, tokens: dict[str, Estimate]) -> Estimate | None:
    if each.measured:
        return tokens.get(each.measured)
    if each.reference is None:
        return results.against(each.arm, each.outcome, each.against)
    found = results.difference(each.arm, each.reference, each.outcome)
    return None if found is None else found.estimate


def _verdict(each: Statement, found: Estimate, p: float | None) -> Verdict:
    low, high = sorted((each.sign * found.low, each.sign * found.high))
    if each.sign * found.value > 0 and (low > 0 if p is None else p < 0.05):
        return "seen"
    margin = 0.0 if each.measured else MARGIN.get(each.outcome, MARGIN_EXTREME)
    return "not seen" if high < 0 or (-margin < low and high < margin) else "undecided"


def _together(verdicts: list[Verdict]) -> Verdict:
    if all(each == "seen" for each in verdicts):
        return "seen"
    return "not seen" if "not seen" in verdicts else "undecided"

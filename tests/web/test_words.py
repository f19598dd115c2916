"""The wording rule: "dropped" is said of the trainer's own logged policy only."""

from __future__ import annotations

import pytest

from web.words import CELLS, cell_name, decision_dppo, decision_ppo, pair_sentence, unavailable

VIEW = {"eps_low": 0.2, "eps_high": 0.28, "delta_low": 0.15, "delta_high": 0.15, "dual_clip": None}


def token(**fields: object) -> dict[str, object]:
    return {"ppo": True, "dppo": True, "advantage": 1.0, "divergence": 0.01, **fields}


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "both_keep"])
def test_only_a_logged_decision_was_made(cell: str) -> None:
    assert "would" not in cell_name(cell, "logged")
    assert "would" in cell_name(cell, "end")
    assert "would" in cell_name(cell, "start")


@pytest.mark.parametrize(
    ("point", "verb"),
    [
        ("end", "would drop it at the step’s end"),
        ("start", "would drop it at the step’s start"),
        ("logged", "dropped it"),
    ],
)
def test_a_decision_names_its_comparison(point: str, verb: str) -> None:
    at = {**VIEW, "evaluated_at": point}
    assert decision_ppo(token(ppo=False), at, 1.8) == f"{verb}: r = 1.80 > 1 + ε_high = 1.28"
    assert decision_ppo(token(ppo=False, advantage=-1.0), at, 0.5) == f"{verb}: r = 0.500 < 1 − ε_low = 0.8"
    assert decision_dppo(token(dppo=False, divergence=0.3), at, 2.5) == f"{verb}: D = 0.300 > δ_high = 0.15"


def test_dual_clip_and_updates_toward_one() -> None:
    at = {**VIEW, "evaluated_at": "logged", "dual_clip": 3.0}
    assert decision_ppo(token(ppo=False, advantage=-1.0), at, 4.0) == "dropped it: r = 4.00 > dual clip c = 3"
    assert decision_dppo(token(divergence=0.4), at, 0.5) == "kept it: the update moves the ratio toward 1"


def test_no_gradient_and_not_known() -> None:
    at = {**VIEW, "evaluated_at": "end"}
    assert decision_ppo(token(advantage=0.0), at, 9.0) == "A = 0: no gradient either way"
    assert decision_ppo(token(ppo=None), at, None) == "not known"
    assert decision_dppo(token(dppo=None, divergence=None), at, 1.1) == "not known"


def test_a_pair_that_spans_more_than_its_step_says_so() -> None:
    text = pair_sentence("rollout", "end", 1)
    assert text == "π = NEW, the policy after the step; measured from μ, the rollout policy."
    assert "3 steps after OLD" in pair_sentence("rollout", "end", 3)
    assert "trainer’s own" in pair_sentence("old", "logged", None)
    assert "trainer’s own" in pair_sentence("rollout", "start", None, "logged")
    assert "trainer’s own" not in pair_sentence("rollout", "start", None)


def test_why_something_is_not_known() -> None:
    assert "both full distributions" in unavailable("rollout", "end", "exact", "scored")
    assert unavailable("rollout", "end", "topk", "scored") == "the log has no lists of μ"
    assert "no checkpoint was scored" in unavailable("old", "end", "binary", "logged")

"""The trainer's own mask: prime-rl token exports, imported through a real server, with decisions worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from service.schemas.methods import Thresholds, framework_thresholds
from tests.live import Server

# (A, μ(a), π(a)); D = |π − μ|
AWAY = [(1, 0.2, 0.5), (1, 0.5, 0.65), (1, 0.001, 0.003), (-1, 0.9, 0.5), (-1, 0.5, 0.38), (-1, 0.5, 0.45)]
#        D .3           D .15           D .002             D .4            D .12           D .05
TOWARD = [(1, 0.9, 0.4), (-1, 0.2, 0.6), (1, 0.6, 0.55)]
#         D .5           D .4            D .05
ZERO = [(0, 0.9, 0.5), (0, 0.5, 0.5)]
#        D .4          D 0
TOKENS = [*AWAY, *TOWARD, *ZERO]


def prime_rl(advantage: float, delta: float) -> bool:
    """`is_masked` of prime-rl's default loss: A = 0 follows the rule of A < 0."""
    return bool(delta > 0.2) if advantage > 0 else bool(delta < -0.2)


def export(tokens: list[tuple[float, float, float]], masked: list[bool]) -> dict[str, Any]:
    """One record of a token export: a prompt of two tokens, then `tokens`."""
    n = len(tokens)
    return {
        "schema_version": 1,
        "step": 3,
        "rank": 0,
        "export_sequence_idx": 0,
        "token_ids": list(range(n + 2)),
        "loss_mask": [False, False, *[True] * n],
        "advantages": [0.0, 0.0, *[a for a, _, _ in tokens]],
        "inference_logprobs": [0.0, 0.0, *[math.log(mu) for _, mu, _ in tokens]],
        "trainer_logprobs": [0.0, 0.0, *[math.log(pi) for _, _, pi in tokens]],
        "is_masked": [False, False, *masked],
    }


def findings(server: Server, records: list[dict[str, Any]], run: str = "r") -> dict[str, list[dict[str, Any]]]:
    assert server.api.post("/runs", json={"run": run}).status_code == 201
    job = server.upload(run, records)
    assert job["state"] == "done", job
    upload = server.api.get(f"/uploads/{job['result']['upload']}").json()
    for level in ("warnings", "notes"):
        assert upload[level] == job["result"][level]
    return {level: [f for f in upload[level] if f["code"] == "trainer_mask"] for level in ("warnings", "notes")}


def test_a_mask_that_is_right(server: Server) -> None:
    masked = [prime_rl(a, pi - mu) for a, mu, pi in TOKENS]
    assert masked == [True, False, False, True, *[False] * 5, True, False]
    found = findings(server, [export(TOKENS, masked)])
    assert found["warnings"] == []
    (note,) = found["notes"]
    assert "DPPO by binary TV from μ at δ = 0.2 (prime-rl)" in note["message"]
    assert "9 of 9 tokens with A ≠ 0 are decided alike (100 %)" in note["message"]
    assert "1 with A = 0 are dropped, which changes no gradient" in note["message"]
    assert (note["count"], note["examples"]) == (0, [])


def test_a_mask_at_another_threshold(server: Server) -> None:
    masked = [pi - mu > 0.1 if a > 0 else mu - pi > 0.1 if a < 0 else False for a, mu, pi in TOKENS]
    assert masked == [True, True, False, True, True, *[False] * 6]
    found = findings(server, [export(TOKENS, masked)])
    assert found["notes"] == []
    (warning,) = found["warnings"]
    assert "7 of 9 tokens" in warning["message"]
    assert "(77.778 %)" in warning["message"]
    # kept up to D = .05 and dropped from .12 where A < 0; kept up to .002 and dropped from .15 where A > 0
    threshold = "2 follow another threshold (between 0.05 and 0.12 for A < 0, between 0.002 and 0.15 for A > 0)"
    assert threshold in warning["message"]
    assert warning["count"] == 2
    assert warning["examples"] == [{"step": 3, "sample_id": "r0/0", "position": at} for at in (1, 4)]


def test_a_symmetric_mask(server: Server) -> None:
    """prime-rl's IPO drops |π − μ| > .1 in either direction."""
    masked = [abs(pi - mu) > 0.1 for _, mu, pi in TOKENS]
    assert masked == [True, True, False, True, True, False, True, True, False, True, False]
    (warning,) = findings(server, [export(TOKENS, masked)])["warnings"]
    assert "5 of 9 tokens" in warning["message"]
    assert "2 follow another threshold" in warning["message"]
    assert "2 are dropped while they move toward r = 1" in warning["message"]
    assert "1 with A = 0 are dropped" in warning["message"]
    assert warning["count"] == 4
    assert [example["position"] for example in warning["examples"]] == [1, 4, 6]


def test_at_the_threshold_unexplained_and_not_known(server: Server) -> None:
    tokens = [*AWAY, (1, 0.3, 0.50001), (1, 0.3, 0.7), (-1, 0.5, 0.1)]
    masked = [True, False, False, True, False, False, False, False, True]  # D = .20001 and .4 kept, D = .3 dropped
    record = export(tokens, masked)
    record["inference_logprobs"][-1] = None
    (warning,) = findings(server, [record])["warnings"]
    assert "6 of 8 tokens" in warning["message"]
    for words in ("1 lie at the threshold", "1 follow no threshold", "1 cannot be compared"):
        assert words in warning["message"]


def test_a_log_without_decisions_says_nothing(server: Server) -> None:
    found = findings(server, [{**export(TOKENS, [False] * len(TOKENS)), "is_masked": [None] * (len(TOKENS) + 2)}])
    assert found == {"warnings": [], "notes": []}


def test_the_tables_of_an_analysis(server: Server) -> None:
    masked = [abs(pi - mu) > 0.1 for _, mu, pi in TOKENS]
    findings(server, [export(TOKENS, masked)])
    analysis = server.analyze("r", source="logged", thresholds={"delta_tv": 0.2})["result"]["analysis"]
    path = f"/analyses/{analysis}/tables"
    rows = server.api.get(f"{path}/trainer_agreement").json()
    of = {(row["method"], row["sign"]): row for row in rows}
    assert {row["evaluated_at"] for row in rows} == {"logged"}
    assert len(of) == len(rows) == 7 * 3
    positive = of["dppo_binary_tv", 1]
    counts = {
        "n": 5,
        "n_both_keep": 2,
        "n_only_trainer_drops": 2,
        "n_only_ours_drops": 0,
        "n_both_drop": 1,
        "n_near_threshold": 0,
        "n_differ_near": 0,
        "n_differ_direction": 1,
        "n_differ_threshold": 1,
        "n_differ_other": 0,
        "n_unknown": 0,
    }
    assert {name: positive[name] for name in counts} == counts
    assert positive["agreement"] == pytest.approx(3 / 5)
    # by chance (2·4 + 3·1)/25 = .44: (.6 − .44)/.56
    assert positive["kappa"] == pytest.approx(0.16 / 0.56)
    assert positive["kept_up_to"] == pytest.approx(0.002)
    assert positive["dropped_from"] == pytest.approx(0.15)
    # ε = .2/.28: r − 1 is 1.5, .3, 2 where A > 0, all dropped; the trainer keeps the last
    ppo = of["ppo", 1]
    assert (ppo["n_both_drop"], ppo["n_only_ours_drops"], ppo["n_only_trainer_drops"]) == (2, 1, 1)
    assert (ppo["n_differ_other"], ppo["n_differ_direction"]) == (1, 1)
    zero = of["dppo_binary_tv", 0]
    assert (zero["n"], zero["n_only_trainer_drops"], zero["agreement"], zero["kappa"]) == (2, 1, None, None)
    unknown = of["dppo_exact_tv", 1]
    assert (unknown["n"], unknown["n_unknown"], unknown["agreement"], unknown["kappa"]) == (0, 5, None, None)

    differ = server.api.get(f"{path}/trainer_differences").json()
    assert [(row["position"], row["difference"]) for row in differ] == [
        (6, "direction"),
        (7, "direction"),
        (9, "no_gradient"),
        (1, "threshold"),
        (4, "threshold"),
    ]
    # under the trainer's own threshold the only differences left are of direction
    at_tenth = {"delta_low": 0.1, "delta_high": 0.1}
    left = server.api.get(f"{path}/trainer_differences", params={**at_tenth, "sign": 1}).json()
    assert [(row["position"], row["difference"], row["ours"], row["trainer_keep"]) for row in left] == [
        (6, "direction", True, False)
    ]
    (moved,) = [
        row
        for row in server.api.get(f"{path}/trainer_agreement", params=at_tenth).json()
        if (row["method"], row["sign"]) == ("dppo_binary_tv", -1)
    ]
    assert (moved["n_both_drop"], moved["n_differ_direction"], moved["n_differ_threshold"]) == (2, 1, 0)
    csv = server.api.get(f"{path}/trainer_agreement", params={"format": "csv"}).text
    assert csv.splitlines()[0].startswith('"method","sign","anchor","evaluated_at","n"')


def test_the_thresholds_of_a_framework() -> None:
    assert framework_thresholds(None, "") == ("paper-stability", Thresholds())
    prime = Thresholds(delta_tv_low=0.2, delta_tv_high=0.2)
    assert framework_thresholds("native", "PRIME_RL") == framework_thresholds("prime-rl") == ("prime-rl", prime)
    assert framework_thresholds("verifiers")[0] == "prime-rl", "whose trainer writes them"
    verl = {"eps_high": 0.2, "dual_clip": 3.0, "delta_tv_low": 0.2, "delta_tv_high": 0.2}
    assert framework_thresholds("verl") == ("verl", Thresholds(**verl, delta_kl_low=0.2, delta_kl_high=0.2))

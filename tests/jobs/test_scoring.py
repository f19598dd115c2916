"""Analyses through a real server and worker on tiny real checkpoints, against a plain float64 computation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from dppo_core.reference import reference_token
from service.worker.score import handle
from tests.conftest import Checkpoints
from tests.jobs.asking import create, logits_of, register, tokens_of
from tests.live import Server
from tests.tiny import VOCAB, records

DIVERGENCES = ("binary_tv", "binary_kl", "topk_tv", "topk_kl", "exact_tv", "exact_kl")


@pytest.mark.parametrize(("with_adapters", "temperature"), [(False, 1.0), (True, 0.7)])
def test_every_statistic_against_the_reference(
    server: Server, checkpoints: Checkpoints, with_adapters: bool, temperature: float
) -> None:
    rows = records(groups=2, samples=3)
    rows[0]["response_mask"][2:4] = [0, 0]
    create(server, "r", rows, temperature=temperature, logprobs_mode="processed")
    if with_adapters:
        pair = [checkpoints.steps[0]] * 2
        adapters: list[Path | None] = list(checkpoints.adapters)
    else:
        pair, adapters = checkpoints.steps[:2], [None, None]
    register(server, "r", pair, adapters)
    job = server.analyze("r", anchor="old", top_k=5)
    assert job["state"] == "done", job
    assert (
        job["progress"]["tokens_done"] == job["progress"]["tokens_total"] == sum(sum(r["response_mask"]) for r in rows)
    )
    found = {(t["sample_id"], t["position"]): t for t in tokens_of(server, job["result"]["analysis"])}
    assert len(found) == sum(sum(row["response_mask"]) for row in rows)
    for row in rows:
        old = logits_of(pair[0], row, adapters[0])
        new = logits_of(pair[1], row, adapters[1])
        for position, token in enumerate(row["response_token_ids"]):
            if not row["response_mask"][position]:
                assert (row["sample_id"], position) not in found
                continue
            stored = found[row["sample_id"], position]
            expected = reference_token(old[position], new[position], token, top_k=5, temperature=temperature)
            renamed = {
                "tv_binary": "tv_binary_old",
                "kl_binary": "kl_binary_old",
                "tv_topk": "tv_topk_old",
                "kl_topk": "kl_topk_old",
            }
            for name, value in expected.items():
                assert stored[renamed.get(name, name)] == pytest.approx(value, abs=1e-5, rel=1e-5), name
            assert stored["token_id"] == token
            assert stored["log_ratio"] == pytest.approx(expected["logp_new"] - expected["logp_old"], abs=1e-5)
            assert stored["log_mismatch"] == pytest.approx(
                expected["logp_old"] - row["rollout_logprobs"][position], abs=1e-5
            )
            drop = (row["advantage"] > 0 and stored["log_ratio"] > math.log(1.28)) or (
                row["advantage"] < 0 and stored["log_ratio"] < math.log(0.8)
            )
            assert stored["keep_ppo"] is not drop


def test_pairs_by_anchor_and_evaluation_point(server: Server, checkpoints: Checkpoints) -> None:
    rows = records(groups=2, samples=2)
    for row in rows:
        n = len(row["response_token_ids"])
        row["old_logprobs"] = [-2.0 - 0.01 * i for i in range(n)]
        row["new_logprobs"] = [-1.5 - 0.02 * i for i in range(n)]
        row["rollout_logprobs"] = [None, *(min(value, -1.2) for value in row["rollout_logprobs"][1:])]
        row["rollout_top_token_ids"] = [[1, 2, 3]] * n
        row["rollout_top_logprobs"] = [[math.log(0.3), math.log(0.2), math.log(0.1)]] * n
    create(server, "r", rows)
    register(server, "r", checkpoints.steps[:2])
    by = {
        (anchor, at): tokens_of(
            server, server.analyze("r", anchor=anchor, evaluated_at=at, top_k=3)["result"]["analysis"]
        )
        for anchor in ("rollout", "old")
        for at in ("start", "end", "logged")
    }
    logged = {
        (row["sample_id"], i): (row["rollout_logprobs"][i], row["old_logprobs"][i], row["new_logprobs"][i])
        for row in rows
        for i in range(len(row["response_token_ids"]))
    }
    for key, stored in {k: {(t["sample_id"], t["position"]): t for t in v} for k, v in by.items()}.items():
        for place, token in stored.items():
            mu, old, new = logged[place]
            anchor, policy = {
                ("rollout", "start"): (mu, token["logp_old"]),
                ("rollout", "end"): (mu, token["logp_new"]),
                ("rollout", "logged"): (mu, new),
                ("old", "start"): (0.0, 0.0),
                ("old", "end"): (token["logp_old"], token["logp_new"]),
                ("old", "logged"): (old, new),
            }[key]
            if anchor is None:
                assert token["log_ratio"] is None
                assert token["tv_binary"] is None
                assert token["keep_ppo"] is None
                assert token["keep_dppo_binary_tv"] is None
                continue
            assert token["log_ratio"] == pytest.approx(policy - anchor, abs=1e-5)
            assert token["tv_binary"] == pytest.approx(abs(math.exp(policy) - math.exp(anchor)), abs=1e-6)
            exact_known = key in {("old", "start"), ("old", "end")}
            assert (token["keep_dppo_exact_tv"] is not None) == exact_known
            assert (token["tv_topk"] is not None) == (key[1] != "logged")
            assert token["tv_exact"] is not None, "always old → new"
            if key == ("old", "start"):
                names = [name for name in token if name.startswith("keep_")]
                assert all(token[name] is True for name in names)
                assert token["kl_topk"] == token["tv_binary"] == 0.0
            if key == ("rollout", "end"):
                assert token["tv_topk"] >= token["tv_binary"] - 1e-6


def test_top_k_from_logged_lists_by_hand(server: Server, checkpoints: Checkpoints) -> None:
    row = records(groups=1, samples=1, length=(4, 4))[0]
    row["response_token_ids"] = [1, 9, 9, 9]
    row["rollout_logprobs"] = [math.log(p) for p in (0.3, 0.05, 0.05, 0.05)]
    row["rollout_top_token_ids"] = [[1, 2], [1, 2], [1, 1], [1, 2]]
    row["rollout_top_logprobs"] = [
        [math.log(p) for p in pair] for pair in ((0.3, 0.2), (0.5, 0.2), (0.5, 0.5), (0.9, 0.2))
    ]
    create(server, "r", [row])
    register(server, "r", checkpoints.steps[:2])
    job = server.analyze("r", anchor="rollout", top_k=2)
    stored = tokens_of(server, job["result"]["analysis"])
    q = torch.softmax(logits_of(checkpoints.steps[1], row).double(), 1)
    first = 0.5 * (abs(0.3 - q[0, 1]) + abs(0.2 - q[0, 2]) + abs(0.5 - (1 - q[0, 1] - q[0, 2])))
    second = 0.5 * (
        abs(0.5 - q[1, 1]) + abs(0.2 - q[1, 2]) + abs(0.05 - q[1, 9]) + abs(0.25 - (1 - q[1, [1, 2, 9]].sum()))
    )
    assert stored[0]["tv_topk"] == pytest.approx(float(first), abs=1e-6)
    assert stored[1]["tv_topk"] == pytest.approx(float(second), abs=1e-6)
    assert stored[2]["tv_topk"] is None, "one distinct entry"
    assert stored[3]["tv_topk"] is None, "the list sums to more than 1"
    assert any("2 logged top-K lists could not be used" in warning for warning in job["warnings"])


def test_a_segment_holds_the_noise_floor_of_a_few_responses(server: Server, checkpoints: Checkpoints) -> None:
    rows = records(groups=3, samples=4)
    rows[0]["response_mask"][2:4] = [0, 0]
    for row in rows:
        row["new_logprobs"] = row["rollout_logprobs"]
    create(server, "r", rows)
    register(server, "r", checkpoints.steps[:2])
    before = set(server.data_dir.glob("tokens/*/part.parquet"))
    assert server.analyze("r", dtype="bfloat16")["state"] == "done"
    assert server.analyze("r", source="logged")["state"] == "done"
    (scored, logged) = sorted(
        (
            pq.read_table(path, partitioning=None)
            for path in set(server.data_dir.glob("tokens/*/part.parquet")) - before
        ),
        key=lambda table: table["tv_exact__old_new"].null_count,
    )
    names = ["noise_logp", "noise_tv", "noise_kl"]
    assert all(logged[name].null_count == logged.num_rows for name in names)
    twice = {row["sample_id"] for row in scored.to_pylist() if row["noise_tv"] is not None}
    assert 1 <= len(twice) < len(rows)
    for row in scored.to_pylist():
        known = row["counted"] and row["sample_id"] in twice
        assert all((row[name] is not None) == known for name in names)
        if known:  # a rounding error against the step from OLD to NEW
            assert 0 <= row["noise_logp"] < 0.2
            assert 0 <= row["noise_tv"] < 0.05
            assert row["noise_tv"] ** 2 <= row["noise_kl"] / 2 + 1e-6, "Pinsker"
    assert any(row["noise_tv"] for row in scored.to_pylist()), "bfloat16 is not exact"


def test_a_shard_is_the_same_when_models_do_not_fit_together(
    server: Server, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    rows = records(groups=2, samples=3)
    before = set(server.data_dir.glob("rollouts/*/*/*.parquet"))
    create(server, "r", rows)
    old, new = (
        {"path": str(path), "fingerprint": "", "adapter": None, "adapter_fingerprint": None}
        for path in checkpoints.steps[:2]
    )
    task = {
        "pieces": [str(path) for path in set(server.data_dir.glob("rollouts/*/*/*.parquet")) - before],
        "sample_ids": [row["sample_id"] for row in rows],
        "old": old,
        "new": new,
        "device": "cpu",
        "dtype": "float32",
        "temperature": 1.0,
        "top_k": 20,
        "topk_mode": "paper",
        "anchored": True,
        "tokenizer": None,
    }
    for together in (True, False, None):
        events: list[dict[str, Any]] = []
        given = {**task, "task": "score", "together": together, "out": str(tmp_path / f"{together}.parquet")}
        handle(given, events.append)
        assert sum(event.get("tokens", 0) for event in events) == sum(len(row["response_token_ids"]) for row in rows)
    first, *others = (pq.read_table(tmp_path / f"{together}.parquet") for together in (True, False, None))
    assert all(first.equals(other) for other in others)
    assert handle({**task, "task": "room"}, events.append) == {"together": True, "row_bytes": 128}


def test_bfloat16_backbone_keeps_float32_logits(server: Server, checkpoints: Checkpoints) -> None:
    rows = records(groups=1)
    create(server, "r", rows)
    register(server, "r", checkpoints.steps[:2])
    full = tokens_of(server, server.analyze("r", dtype="float32")["result"]["analysis"])
    half = tokens_of(server, server.analyze("r", dtype="bfloat16")["result"]["analysis"])
    gaps = [abs(a["logp_old"] - b["logp_old"]) for a, b in zip(full, half, strict=True)]
    assert 0 < max(gaps) < 0.5
    # bf16 logits would make every log-prob difference of two tokens a multiple of a power of two; these are not
    assert len({round(token["logp_old"] * 256) / 256 == token["logp_old"] for token in half}) >= 1
    assert sum(token["logp_old"] * 2**12 % 1 == 0 for token in half) < len(half) / 4


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_what_a_model_does_to_its_logits_is_done_too(server: Server, checkpoints: Checkpoints, family: str) -> None:
    import transformers

    small = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    kinds: dict[str, Any] = {
        "gemma2": ("Gemma2", {"final_logit_softcapping": 2.0, "head_dim": 16, "sliding_window": 64}),
        "granite": ("Granite", {"logits_scaling": 4.0}),
        "cohere": ("Cohere", {"logit_scale": 0.25}),
    }
    name, extra = kinds[family]
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{name}Config")(
            **small, **extra, pad_token_id=0, bos_token_id=1, eos_token_id=2
        )
        path = checkpoints.root / f"{family}_{seed}"
        getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(path)
        paths.append(path)
    rows = records(groups=1, samples=2)
    create(server, "r", rows)
    register(server, "r", paths)
    job = server.analyze("r", anchor="old")
    assert job["state"] == "done", job
    stored = {(t["sample_id"], t["position"]): t for t in tokens_of(server, job["result"]["analysis"])}
    for row in rows:
        logp = torch.log_softmax(logits_of(paths[1], row).double(), 1)
        for position, token in enumerate(row["response_token_ids"]):
            assert stored[row["sample_id"], position]["logp_new"] == pytest.approx(
                float(logp[position, token]), abs=1e-5
            )


@pytest.mark.parametrize(("anchor", "evaluated_at"), [("old", "end"), ("rollout", "end"), ("rollout", "start")])
def test_methods_decide_as_the_contract_s_columns_do(
    server: Server, checkpoints: Checkpoints, anchor: str, evaluated_at: str
) -> None:
    """Two ways to one number: the registry in the worker, and SQL's masks on the published tokens."""
    create(server, "r", [*records(0, groups=2, samples=3), *records(1, groups=2, samples=3)])
    register(server, "r", checkpoints.steps[:3])
    thresholds = {"eps_low": 0.05, "eps_high": 0.06, "delta_tv": 0.001, "delta_kl": 0.00002}
    job = server.analyze("r", anchor=anchor, evaluated_at=evaluated_at, top_k=5, thresholds=thresholds)
    analysis = job["result"]["analysis"]
    table = server.api.get(f"/analyses/{analysis}/tables/method_agreement").json()
    found = {row["method"]: row for row in table if row["method"] == row["other"]}
    decided = tokens_of(server, analysis, "advantage <> 0")
    compared = 0
    for column, name in {"keep_ppo": "ppo", **{f"keep_dppo_{d}": f"dppo_{d}" for d in DIVERGENCES}}.items():
        method = found[f"{name}_{anchor}"]
        for sign, rate in ((1, "drop_rate_positive"), (-1, "drop_rate_negative")):
            kept = [t[column] for t in decided if t["advantage"] * sign > 0 and t[column] is not None]
            if kept:
                assert method[rate] == pytest.approx(kept.count(False) / len(kept), abs=1e-15), (name, sign)
                compared += 1
            else:
                assert method[rate] is None
                assert method["reason"] is not None
    assert compared >= 6
    assert any(0 < (row["drop_rate_positive"] or 0) < 1 for row in found.values()) or evaluated_at == "start"
    (summed,) = [row for row in table if row["method"] == row["other"] == f"ppo_{anchor}"]
    assert summed["n"] == len([t for t in decided if t["keep_ppo"] is not None])


def test_bounds_and_noise_floor_of_each_step(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", [*records(0, groups=2, samples=3), *records(1, groups=2, samples=3)])
    register(server, "r", checkpoints.steps[:3])
    analysis = server.analyze("r", anchor="old")["result"]["analysis"]
    tokens = tokens_of(server, analysis)
    bounds = server.api.get(f"/analyses/{analysis}/tables/bounds").json()
    assert [row["step"] for row in bounds] == [0, 1]
    for row in bounds:
        of_step = [t for t in tokens if t["step"] == row["step"]]
        by_sample: dict[str, list[dict[str, Any]]] = {}
        for token in of_step:
            by_sample.setdefault(token["sample_id"], []).append(token)
        gains = [(sum(math.expm1(t["log_ratio_old"]) for t in ts) * ts[0]["reward"], ts) for ts in by_sample.values()]
        assert row["responses"] == len(by_sample)
        assert row["tv_source"] == "exact"
        assert row["first_order"] == pytest.approx(sum(gain for gain, _ in gains) / len(gains), rel=1e-6, abs=1e-12)
        products = [ts[0]["reward"] * math.expm1(sum(t["log_ratio_old"] for t in ts)) for _, ts in gains]
        assert row["first_order"] - row["correction"] == pytest.approx(sum(products) / len(products), abs=1e-9)
        tv = sum(t["tv_exact"] for t in of_step) / len(by_sample)
        assert row["tv_sum"] == pytest.approx(tv)
        assert row["eq8"] == pytest.approx(row["first_order"] - 4 * row["xi"] * tv)
    floors = server.api.get(f"/analyses/{analysis}/tables/noise_floor").json()
    assert [row["step"] for row in floors] == [0, 1]

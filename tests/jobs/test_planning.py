"""What an analysis takes where nothing is said, what it refuses, and what it says before minutes are spent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Checkpoints
from tests.jobs.asking import create, logits_of, register, tokens_of
from tests.live import Server
from tests.tiny import VOCAB, records, save_checkpoint


def test_moving_an_anchor_or_a_threshold_never_scores_again(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", records())
    register(server, "r", checkpoints.steps[:2])
    before = len(list(server.data_dir.glob("tokens/scoring=x*/part.parquet")))
    first = server.analyze("r")["result"]["analysis"]
    segments = {path: path.stat().st_mtime_ns for path in server.data_dir.glob("tokens/scoring=x*/part.parquet")}
    assert len(segments) == before + 1
    second = server.analyze("r", anchor="old", thresholds={"delta_tv": 0.01, "eps_low": 0.05})["result"]["analysis"]
    again = server.analyze("r")["result"]["analysis"]
    assert first == again != second
    assert {
        path: path.stat().st_mtime_ns for path in server.data_dir.glob("tokens/scoring=x*/part.parquet")
    } == segments
    row = server.api.get(f"/analyses/{second}").json()
    assert row["thresholds"]["delta_tv_low"] == row["thresholds"]["delta_tv_high"] == 0.01
    assert row["thresholds"]["eps_high"] == 0.28


def test_defaults_and_steps_without_a_pair(server: Server, checkpoints: Checkpoints) -> None:
    rows = (
        records(step=0)
        + records(step=1)
        + [{name: value for name, value in row.items() if name != "rollout_logprobs"} for row in records(step=2)]
    )
    create(server, "r", rows)
    register(server, "r", checkpoints.steps[:3])
    job = server.analyze("r")
    assert job["result"]["steps"] == [0, 1]
    assert [entry["step"] for entry in job["result"]["skipped_steps"]] == [2]
    row = server.api.get(f"/analyses/{job['result']['analysis']}").json()
    assert (row["anchor"], row["evaluated_at"], row["dtype"], row["top_k"]) == ("rollout", "end", "float32", 20)
    assert [step["span"] for step in row["steps"]] == [1, 1]
    refused = server.api.post("/runs/r/analyses", json={"steps": [2]})
    assert refused.status_code == 422
    assert "step 3" in refused.text


def test_a_given_pair_is_labelled_with_its_span(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", records())
    ids = register(server, "r", checkpoints.steps)
    job = server.analyze("r", steps=[0], old=ids[0], new=ids[3])
    row = server.api.get(f"/analyses/{job['result']['analysis']}").json()
    assert [(step["span"], step["new_checkpoint"]) for step in row["steps"]] == [(3, ids[3])]
    both = server.api.post("/runs/r/analyses", json={"old": ids[0], "new": ids[1]})
    assert "exactly one step" in both.json()["detail"]


def test_logged_analysis_needs_no_model(server: Server) -> None:
    rows = records(groups=1, samples=2)
    for row in rows:
        row["new_logprobs"] = [value - 0.1 for value in row["rollout_logprobs"]]
    create(server, "r", rows)
    job = server.analyze("r", source="logged")
    assert job["state"] == "done", job
    for token in tokens_of(server, job["result"]["analysis"]):
        assert token["log_ratio"] == pytest.approx(-0.1, abs=1e-6)
        assert token["logp_old"] is token["logp_new"] is token["tv_exact"] is None
        assert token["logp_new_logged"] is not None
    row = server.api.get(f"/analyses/{job['result']['analysis']}").json()
    assert (row["source"], row["evaluated_at"], row["anchor"]) == ("logged", "logged", "rollout")


def test_a_log_with_mu_and_old_alone_is_analysed_at_the_start(server: Server) -> None:
    rows = records(groups=1, samples=2)
    for row in rows:  # as NeMo-RL logs: what sampled, and the trainer's own before the update
        row["rollout_logprobs"] = [math.log(0.8)] * len(row["response_token_ids"])
        row["old_logprobs"] = [math.log(0.6)] * len(row["response_token_ids"])
        row["advantage"] = -1.0
    rows[0]["old_logprobs"][1] = None
    create(server, "r", rows)
    job = server.analyze("r", source="logged")
    assert job["state"] == "done", job
    analysis = job["result"]["analysis"]
    row = server.api.get(f"/analyses/{analysis}").json()
    assert (row["source"], row["evaluated_at"], row["anchor"]) == ("logged", "start", "rollout")
    tokens = tokens_of(server, analysis)
    unknown = [token for token in tokens if token["logp_old_logged"] is None]
    assert [(token["position"], token["log_ratio"], token["keep_ppo"]) for token in unknown] == [(1, None, None)]
    for token in (token for token in tokens if token not in unknown):
        assert token["log_ratio"] == token["log_mismatch"] == pytest.approx(math.log(0.75), abs=1e-6)
        assert token["tv_binary"] == token["tv_binary_mismatch"] == pytest.approx(0.2, abs=1e-6)
        # r = .75 < 1 - .2 and A < 0; TV .2 > .15
        assert token["keep_ppo"] is token["keep_dppo_binary_tv"] is False
        assert token["logp_old"] is token["logp_new"] is token["log_ratio_old"] is token["tv_topk"] is None
    agreement = server.api.get(f"/analyses/{analysis}/tables/method_agreement").json()
    drops = {row["method"]: (row["n"], row["drop_rate_negative"]) for row in agreement if row["method"] == row["other"]}
    known = len(tokens) - 1
    assert drops["ppo_rollout"] == drops["dppo_binary_tv_rollout"] == (known, 1.0)
    assert drops["ppo_old"] == (known, 0.0)  # π is π_old
    for body, words in (
        ({"evaluated_at": "logged"}, "no new_logprobs"),
        ({"evaluated_at": "start", "anchor": "old"}, "measured from rollout"),
        ({"evaluated_at": "end"}, "logged, or start"),
    ):
        refused = server.api.post("/runs/r/analyses", json={"source": "logged", **body})
        assert refused.status_code == 422
        assert words in refused.json()["detail"]


def test_raw_log_probs_at_another_temperature_are_not_an_anchor(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", records(), temperature=0.6, logprobs_mode="raw")
    register(server, "r", checkpoints.steps[:2])
    refused = server.api.post("/runs/r/analyses", json={"anchor": "rollout"})
    assert refused.status_code == 422
    assert "raw log-probs" in refused.json()["detail"]
    job = server.analyze("r")
    assert server.api.get(f"/analyses/{job['result']['analysis']}").json()["anchor"] == "old"
    assert all(token["log_mismatch"] is None for token in tokens_of(server, job["result"]["analysis"]))


def test_log_probs_of_which_nobody_said_how_they_were_made(server: Server, checkpoints: Checkpoints) -> None:
    """Made up, so that the audit cannot tell either. At temperature 1 raw and processed are the same."""
    told = {}
    for run, sampling in (("silent", {}), ("said", {"logprobs_mode": "processed"}), ("plain", {"temperature": 1.0})):
        create(server, run, records(groups=1), **{"temperature": 0.6, **sampling})
        register(server, run, checkpoints.steps[:2])
        told[run] = [one for one in server.analyze(run)["warnings"] if "logprobs_mode was not given" in one]
    assert told == {
        "silent": [
            (
                "sampling.logprobs_mode was not given at temperature 0.6; the logged log-probs are taken as processed "
                "(temperature applied). Raw ones would show a false mismatch."
            )
        ],
        "said": [],
        "plain": [],
    }


def test_what_can_be_known_before_scoring_is_said_before(
    server: Server, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    rows = records()
    rows[0]["response_token_ids"][0] = VOCAB
    create(server, "vocab", rows)
    register(server, "vocab", checkpoints.steps[:2])
    job = server.analyze("vocab")
    assert job["state"] == "failed"
    assert f"token id {VOCAB}" in job["error"]["detail"]

    create(server, "long", records(groups=1, samples=1, length=(300, 300)))
    register(server, "long", checkpoints.steps[:2])
    assert "max_position_embeddings" in server.analyze("long")["error"]["detail"]

    moving = save_checkpoint(checkpoints.root / "moving", seed=0)
    create(server, "overwritten", records())
    register(server, "overwritten", [checkpoints.steps[0], moving])
    save_checkpoint(moving, seed=5, noise=0.1)
    assert "overwritten after it was registered" in server.analyze("overwritten")["error"]["detail"]


def test_an_adapter_for_another_base_is_refused(server: Server, checkpoints: Checkpoints) -> None:
    other = save_checkpoint(checkpoints.root / "other", seed=0, hidden_size=48, num_attention_heads=4)
    create(server, "r", records())
    response = server.api.post(
        "/runs/r/checkpoints", json={"step": 0, "path": str(other), "adapter": str(checkpoints.adapters[0])}
    )
    assert response.status_code == 422
    assert "another base" in response.json()["detail"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda path: (path / "config.json").unlink(), "config.json is missing"),
        (
            lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-9]),
            "cut short",
        ),
        (
            lambda path: (path / "config.json").write_text('{"vocab_size": 5, "auto_map": {"AutoModel": "x.Y"}}'),
            "auto_map",
        ),
        (lambda path: (path / "config.json").write_text("{"), "not JSON"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "may run code"),
    ],
)
def test_a_bad_checkpoint_is_refused(server: Server, checkpoints: Checkpoints, change: Any, words: str) -> None:
    path = save_checkpoint(checkpoints.root / f"bad-{abs(hash(words))}", seed=0)
    change(path)
    create(server, "r", records(groups=1))
    response = server.api.post("/runs/r/checkpoints", json={"step": 0, "path": str(path)})
    assert response.status_code == 422
    assert words in response.json()["detail"]


def test_old_logprobs_that_fit_another_step_are_warned_about(server: Server, checkpoints: Checkpoints) -> None:
    rows = records(groups=1, samples=4)
    for row in rows:  # the trainer's own old policy is the checkpoint that is registered one step late
        logp = torch.log_softmax(logits_of(checkpoints.steps[0], row).double(), 1)
        row["old_logprobs"] = [min(-1e-9, float(logp[i, token])) for i, token in enumerate(row["response_token_ids"])]
        row["step"] = 1
    create(server, "r", rows)
    register(server, "r", checkpoints.steps[:3])
    job = server.analyze("r")
    assert any("fit the checkpoint registered for step 0 better" in warning for warning in job["warnings"]), job

"""What an audit says where a user sees it: in the job, on the analysis and on the upload, through a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from service.jobs.audit import WORDS
from tests.conftest import Checkpoints
from tests.jobs.asking import create, logits_of, register
from tests.live import Server
from tests.tiny import records, save_checkpoint


def logged_by(path: Path, temperature: float = 1.0, step: int = 1) -> list[dict[str, Any]]:
    """Records of one step with what a policy says of them as rollout log-probs."""
    rows = records(step=step, groups=2, samples=2, length=(12, 20))
    for row in rows:
        logp = torch.log_softmax(logits_of(path, row).double() / temperature, 1)
        row["rollout_logprobs"] = [float(logp[at, token]) for at, token in enumerate(row["response_token_ids"])]
    return rows


def audits(server: Server, run: str) -> dict[str, list[dict[str, Any]]]:
    """What audits left on the run's one upload."""
    (upload,) = server.api.get(f"/runs/{run}/uploads").json()
    return {
        level: [finding for finding in upload[level] if finding.get("source") == "audit"]
        for level in ("warnings", "notes")
    }


def test_a_log_that_fits_is_noted_once_and_for_every_analysis(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", logged_by(checkpoints.steps[1], 0.7), temperature=0.7, top_p=0.99)
    ids = register(server, "r", checkpoints.steps[:3])
    first = server.analyze("r")
    assert first["warnings"] == [], "neither raw log-probs nor a nucleus are suspected any more"
    (note,) = first["result"]["notes"]
    assert f"step 1: audited against checkpoint {ids[1]} on " in note
    assert " tokens of 4 responses: rollout_logprobs median |Δ log-prob| " in note
    found = audits(server, "r")
    assert found["warnings"] == []
    (kept,) = found["notes"]
    assert (kept["code"], kept["level"], kept["message"]) == ("audited", "note", note)
    assert (kept["step"], kept["checkpoint"], kept["examples"]) == (1, ids[1], [])
    again = server.analyze("r", thresholds={"delta_tv": 0.2})
    assert again["result"]["notes"] == [note], "scored already: what was found then"
    for job in (first, again):
        analysis = server.api.get(f"/analyses/{job['result']['analysis']}").json()
        assert (analysis["warnings"], analysis["notes"]) == ([], [note])
    page = server.api.get(f"{server.url}/analyses/{analysis['analysis']}").text
    assert page.count("audited against checkpoint") == 1
    assert (
        server.api.get(f"{server.url}/runs/r").text.count("audited against checkpoint") == 3
    )  # two analyses, an upload


def test_an_audit_replaces_what_it_found_before(server: Server, checkpoints: Checkpoints) -> None:
    """Checkpoints registered one step late, then again as they should be."""
    create(server, "r", logged_by(checkpoints.steps[0]))
    ids = register(server, "r", checkpoints.steps[:3])
    job = server.analyze("r")
    (warning,) = job["warnings"]
    assert warning.startswith(
        "step 1: the log's rollout_logprobs fit the checkpoint registered for step 0 better (median"
    )
    assert "was `--after` meant" in warning
    assert "asynchronous" in warning, "μ may be stale; the trainer's own log-probs are not"
    (kept,) = audits(server, "r")["warnings"]
    assert (kept["code"], kept["message"]) == ("checkpoint_off_by_one", warning)
    assert kept["count"] > 40
    assert {"step", "sample_id", "position"} == set(kept["examples"][0])
    given = server.analyze("r", steps=[1], old=ids[1], new=ids[2], top_k=3)
    assert given["warnings"] == [], "a pair that was given is not doubted"
    for at, path in ((1, checkpoints.steps[0]), (2, checkpoints.steps[1])):
        assert server.api.post("/runs/r/checkpoints", json={"step": at, "path": str(path)}).status_code == 201
    assert server.analyze("r")["warnings"] == []
    assert audits(server, "r")["warnings"] == []
    assert len(audits(server, "r")["notes"]) == 1


def test_doubts_in_words(server: Server, checkpoints: Checkpoints) -> None:
    rows = logged_by(checkpoints.steps[1], 1.0)
    for row, other in zip(rows, logged_by(checkpoints.steps[1], 0.8), strict=True):
        row["old_logprobs"] = [-4.0, *other["rollout_logprobs"][:-1]]
    create(server, "r", rows, temperature=0.6)
    register(server, "r", checkpoints.steps[:3])
    shifted, temperature, raw = server.analyze("r")["warnings"]
    assert shifted.startswith("step 1: old_logprobs are shifted: the entry after a token's fits it best (median")
    assert "old_logprobs fit a temperature of about 0.80 better than " in temperature
    assert "rollout_logprobs are raw log-probs: they fit temperature 1 better than the run's 0.6" in raw
    assert [finding["code"] for finding in audits(server, "r")["warnings"]] == [
        "shifted_logprobs",
        "temperature",
        "raw_logprobs",
    ]


def test_the_other_doubts_in_words() -> None:
    figures = {"list": "rollout_logprobs", "median": 0.01, "claimed": 0.5, "correlation": 0.125, "path": "/base"}
    run = {"temperature": 0.6, "top_p": 0.9, "top_k": 0}
    for code, words in {
        "processed_logprobs": "they fit 0.6 better than 1 (median |Δ log-prob| 0.01 against 0.5)",
        "renormalised_nucleus": "renormalised within top_p 0.9, top_k 0 the checkpoint fits them better (median",
        "logprobs_do_not_fit": "do not fit checkpoint /base at any temperature: median |Δ log-prob| 0.01 nats, corr",
    }.items():
        assert words in WORDS[code]({**run, **figures})


def test_a_neighbour_that_cannot_be_used_is_left_out(server: Server, checkpoints: Checkpoints) -> None:
    """The checkpoints beside the pair are only compared with: gone, or of another vocabulary, they stop nothing."""
    gone = save_checkpoint(checkpoints.root / "gone", seed=0)
    create(server, "r", logged_by(checkpoints.steps[1], step=2))
    register(server, "r", [checkpoints.steps[0], gone, *checkpoints.steps[1:3]])
    (gone / "model.safetensors").unlink()
    job = server.analyze("r")
    assert (job["state"], job["warnings"], len(job["result"]["notes"])) == ("done", [], 1)


def test_without_log_probs_there_is_no_audit(server: Server, checkpoints: Checkpoints) -> None:
    create(server, "r", [{**row, "rollout_logprobs": None} for row in records()])
    register(server, "r", checkpoints.steps[:2])
    assert server.analyze("r")["result"]["notes"] == []

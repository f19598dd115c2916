"""The audit on tiny models, whose responses are really sampled: what is planted is found and named, and nothing else.

Log-probs are worked out here, one response at a time, in float64.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from service.process import Message
from service.schemas.rollout import ROLLOUT_SCHEMA
from service.worker.audit import TOKENS
from service.worker.score import handle
from tests.conftest import Checkpoints
from tests.live import REPOSITORY

RUN = REPOSITORY / "service" / "cli" / "demo_data" / "smollm2-arith"
TOP_P, TOP_K = 0.9, 100
RESPONSES, LENGTH = 4, 40
NOISE = 0.01  # nats, as of an engine in another precision


class Sampled:
    """Responses of one policy: token ids, and the logits [T, V] of any policy at them."""

    def __init__(self, policies: list[Message], *, temperature: float, truncated: bool) -> None:
        models = [load(policy) for policy in policies]
        random = torch.Generator().manual_seed(3)
        self.prompts = [[3, 1 + at, 4] for at in range(RESPONSES)]
        ids = torch.tensor(self.prompts)
        with torch.no_grad():
            for _ in range(LENGTH):
                p = (models[0](ids).logits[:, -1].double() / temperature).softmax(1)
                if truncated:
                    p = torch.stack([nucleus(row) for row in p])
                ids = torch.cat([ids, torch.multinomial(p, 1, generator=random)], dim=1)
            self.logits = [list(model(ids).logits[:, 2:-1].double()) for model in models]
        self.responses = ids[:, 3:].tolist()

    def __iter__(self) -> Any:
        return zip(self.prompts, self.responses, strict=True)

    def logp(self, policy: int, temperature: float, *, truncated: bool = False) -> list[Tensor]:
        """log π(a) of each response under one of the policies."""
        found = []
        for logits, response in zip(self.logits[policy], self.responses, strict=True):
            p = (logits / temperature).softmax(1)
            p = torch.stack([nucleus(row) for row in p]) if truncated else p
            found.append(p.log().gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1))
        return found


def place(path: Path, adapter: Path | None = None) -> Message:
    return {"path": str(path), "fingerprint": "", "adapter": adapter and str(adapter), "adapter_fingerprint": None}


def policies(checkpoints: Checkpoints) -> list[Message]:
    """Before steps 0, 1 and 2: a base, and two adapters of it."""
    base = checkpoints.steps[0]
    return [place(base), *(place(base, adapter) for adapter in checkpoints.adapters)]


def load(policy: Message) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy["path"], dtype=torch.float32)
    return (PeftModel.from_pretrained(model, policy["adapter"]) if policy["adapter"] else model).eval()


def nucleus(p: Tensor) -> Tensor:
    """p within the top k, and there within the smallest set that holds `TOP_P`, renormalised."""
    kept, mass = torch.zeros_like(p), 0.0
    best = sorted(range(len(p)), key=lambda v: -float(p[v]))[:TOP_K]
    whole = float(p[best].sum())
    for v in best:
        if mass < TOP_P * whole:
            kept[v] = p[v]
            mass += float(p[v])
    return kept / mass


@pytest.fixture(scope="module")
def sampled(checkpoints: Checkpoints) -> Callable[[float, bool], Sampled]:
    """Responses of the policy before step 1, at a temperature, from a nucleus or not; 1 is the policy before step 0."""
    known: dict[tuple[float, bool], Sampled] = {}
    before, old, _ = policies(checkpoints)

    def sample(temperature: float, truncated: bool) -> Sampled:
        key = temperature, truncated
        if key not in known:
            known[key] = Sampled([old, before], temperature=temperature, truncated=truncated)
        return known[key]

    return sample


def noisy(logps: list[Tensor]) -> list[list[float]]:
    random = torch.Generator().manual_seed(5)
    found = [logp + NOISE * torch.randn(len(logp), generator=random) for logp in logps]
    return [logp.clamp(max=-1e-9).tolist() for logp in found]


def audit(
    folder: Path, beside: list[Message], rows: list[dict[str, Any]], *, neighbours: bool = True, **sampling: Any
) -> Message:
    """The worker's answer about rows that are said to be of step 1; `beside`: the policies before steps 0, 1 and 2."""
    facts = {"upload": "u", "step": 1, "group_id": "g", "row_hash": "", "counted_tokens": 0}
    whole = [
        {
            **facts,
            "sample_id": f"s{at}",
            "response_mask": [True] * len(row["response_token_ids"]),
            "prompt_tokens": len(row["prompt_token_ids"]),
            "response_tokens": len(row["response_token_ids"]),
            **row,
        }
        for at, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(whole, schema=ROLLOUT_SCHEMA), folder / "piece.parquet")
    before, old, new = beside
    events: list[Message] = []
    task = {
        "task": "audit",
        "pieces": [str(folder / "piece.parquet")],
        "sample_ids": [row["sample_id"] for row in whole],
        "old": old,
        "new": new,
        "neighbours": [[0, before], [2, new]] if neighbours else [],
        "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs_mode": None, **sampling},
        "device": "cpu",
        "dtype": "float32",
    }
    result = handle(task, events.append)
    assert len(events) == 1 + 2 * neighbours + len(result["lists"]), "a sign of life after each part"
    return result


def rows_of(responses: Sampled, **lists: list[list[float]]) -> list[dict[str, Any]]:
    return [
        {"prompt_token_ids": p, "response_token_ids": r, **{name: values[at] for name, values in lists.items()}}
        for at, (p, r) in enumerate(responses)
    ]


Sample = Callable[[float, bool], Sampled]
TRUNCATION = {"top_p": TOP_P, "top_k": TOP_K}


@pytest.mark.parametrize(
    ("temperature", "mode", "truncated", "renormalised"),
    [
        (1.0, None, False, False),
        (1.0, "raw", False, False),
        (0.7, None, False, False),
        (0.7, "raw", False, False),
        (1.0, None, True, False),  # truncated sampling, and log-probs over the whole vocabulary
    ],
)
def test_what_is_as_the_run_says_raises_no_doubt(
    tmp_path: Path,
    checkpoints: Checkpoints,
    sampled: Sample,
    temperature: float,
    mode: str | None,
    truncated: bool,
    renormalised: bool,
) -> None:
    responses = sampled(temperature, truncated)
    mu = noisy(responses.logp(0, 1.0 if mode == "raw" else temperature, truncated=renormalised))
    old = [logp.clamp(max=-1e-9).tolist() for logp in responses.logp(0, temperature)]
    rows = rows_of(responses, rollout_logprobs=mu, old_logprobs=old)
    sampling = {"temperature": temperature, "logprobs_mode": mode, **(TRUNCATION if truncated else {})}
    result = audit(tmp_path, policies(checkpoints), rows, **sampling)
    assert (result["responses"], result["tokens"]) == (RESPONSES, RESPONSES * LENGTH)
    trainer, engine = result["lists"]
    assert (trainer["list"], engine["list"]) == ("old_logprobs", "rollout_logprobs")
    assert trainer["doubts"] == engine["doubts"] == []
    assert trainer["median"] < 1e-5
    assert 0.003 < engine["median"] < 0.012  # the median of |N(0, .01)| is .0067
    assert engine["slope"] == pytest.approx(1, abs=0.01)
    assert engine["correlation"] > 0.999


@pytest.mark.parametrize("by", [-1, 1])
def test_a_shift(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample, by: int) -> None:
    responses = sampled(1.0, False)
    right = noisy(responses.logp(0, 1.0))
    logged = [[-1.0, *logp[:-1]] if by == 1 else [*logp[1:], -1.0] for logp in right]
    (fit,) = audit(tmp_path, policies(checkpoints), rows_of(responses, rollout_logprobs=logged))["lists"]
    (doubt,) = fit["doubts"]
    assert (doubt["code"], doubt["by"]) == ("shifted_logprobs", by), "the entry after its own holds a token's log-prob"
    before, here, after = doubt["medians"]
    assert (after if by == 1 else before) < 0.012 < 0.3 < min(here, before if by == 1 else after)


def test_log_probs_of_another_temperature(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample) -> None:
    responses = sampled(0.7, False)
    lists = {"rollout_logprobs": noisy(responses.logp(0, 0.7))}
    (fit,) = audit(tmp_path, policies(checkpoints), rows_of(responses, **lists), temperature=1.0)["lists"]
    (doubt,) = fit["doubts"]
    assert (doubt["code"], doubt["stated"]) == ("temperature", 1.0)
    assert doubt["temperature"] == pytest.approx(0.7, rel=0.02)
    assert doubt["median"] < 0.012 < 0.1 < doubt["claimed"]
    assert fit["slope"] > 1.2, "the spread is larger than at the run's temperature"


def test_raw_and_processed(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample) -> None:
    responses = sampled(0.7, False)
    for temperature, mode, code in ((1.0, None, "raw_logprobs"), (0.7, "raw", "processed_logprobs")):
        rows = rows_of(responses, rollout_logprobs=noisy(responses.logp(0, temperature)))
        (fit,) = audit(tmp_path, policies(checkpoints), rows, temperature=0.7, logprobs_mode=mode)["lists"]
        (doubt,) = fit["doubts"]
        assert doubt["code"] == code
        assert doubt["median"] < 0.012 < 0.1 < doubt["claimed"]


def test_a_renormalised_nucleus(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample) -> None:
    responses = sampled(1.0, True)
    rows = rows_of(responses, rollout_logprobs=noisy(responses.logp(0, 1.0, truncated=True)))
    (fit,) = audit(tmp_path, policies(checkpoints), rows, **TRUNCATION)["lists"]
    (doubt,) = fit["doubts"]
    assert doubt["code"] == "renormalised_nucleus"
    assert doubt["median"] < 0.012 < 0.08 < doubt["claimed"], "−log of the mass that stays is at least −log .9"


@pytest.mark.parametrize("name", ["old_logprobs", "rollout_logprobs"])
def test_checkpoints_one_step_off(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample, name: str) -> None:
    """The policy before step 0 sampled what is said to be of step 1. With both lists, the trainer's own decides."""
    responses = sampled(1.0, False)
    rows = rows_of(responses, **{name: noisy(responses.logp(1, 1.0))})
    (fit,) = audit(tmp_path, policies(checkpoints), rows)["lists"]
    (doubt,) = fit["doubts"]
    assert (doubt["code"], doubt["fits_step"]) == ("checkpoint_off_by_one", 0)
    assert doubt["median"] < 0.012 < 0.03 < doubt["claimed"]
    (alone,) = audit(tmp_path, policies(checkpoints), rows, neighbours=False)["lists"]
    assert alone["doubts"] == []


def test_several_faults_at_once(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample) -> None:
    responses = sampled(0.7, False)
    logged = [[-1.0, *logp[:-1]] for logp in noisy(responses.logp(1, 1.0))]
    (fit,) = audit(tmp_path, policies(checkpoints), rows_of(responses, rollout_logprobs=logged), temperature=0.7)[
        "lists"
    ]
    codes = [doubt["code"] for doubt in fit["doubts"]]
    assert codes == ["shifted_logprobs", "raw_logprobs", "checkpoint_off_by_one"]


def test_what_fits_nothing(tmp_path: Path, checkpoints: Checkpoints, sampled: Sample) -> None:
    responses = sampled(1.0, False)
    random = torch.Generator().manual_seed(1)
    logged = [(-10 * torch.rand(LENGTH, generator=random) - 0.2).tolist() for _ in range(RESPONSES)]
    logged[2][7] = -60.0
    (fit,) = audit(tmp_path, policies(checkpoints), rows_of(responses, rollout_logprobs=logged))["lists"]
    (doubt,) = fit["doubts"]
    assert doubt["code"] == "logprobs_do_not_fit"
    assert doubt["count"] == RESPONSES * LENGTH
    assert doubt["examples"][0] == {"sample_id": "s2", "position": 7}
    assert len(doubt["examples"]) == 3


def test_too_few_tokens_and_too_many(tmp_path: Path, checkpoints: Checkpoints) -> None:
    short = {"prompt_token_ids": [5], "response_token_ids": [1] * 15, "rollout_logprobs": [-9.0] * 15}
    (fit,) = audit(tmp_path, policies(checkpoints), [short])["lists"]
    assert (fit["n"], fit["enough"], fit["doubts"]) == (15, False, [])
    sure = {"prompt_token_ids": [5], "response_token_ids": [1] * 200, "rollout_logprobs": [-9.0] * 200}
    masked = {**sure, "response_mask": [at % 2 == 0 for at in range(200)]}
    result = audit(tmp_path, policies(checkpoints), [sure, masked, sure, sure])
    assert result["tokens"] == 3 * TOKENS // 4 + 100, "the first of each, by those that count"
    assert result["lists"][0]["n"] == result["tokens"]


@pytest.mark.model
def test_a_real_run_one_step_off_by_its_engine_s_log_probs_alone(tmp_path: Path, base_checkpoint: Path) -> None:
    """Responses that a bfloat16 engine sampled before step 2, said to be of step 1: its noise is larger than a step."""
    with gzip.open(RUN / "rollouts.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["step"] == 2][::12]
    names = ("prompt_token_ids", "response_token_ids", "rollout_logprobs")
    beside = [place(base_checkpoint, RUN / "adapters" / f"step_00{step}") for step in (0, 1, 2)]
    (fit,) = audit(tmp_path, beside, [{name: row[name] for name in names} for row in rows])["lists"]
    (doubt,) = fit["doubts"]
    assert (doubt["code"], doubt["fits_step"]) == ("checkpoint_off_by_one", 2)
    assert doubt["median"] < doubt["claimed"] < 3 * doubt["median"]
    assert fit["correlation"] > 0.99

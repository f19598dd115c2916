"""Analysis jobs: check everything that is cheap to check, score what is not scored yet, publish step by step."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import Invalid, WorkerFailed
from service.ids import content_id
from service.jobs.audit import Audit, audited
from service.jobs.executor import Executor
from service.jobs.jobs import Cancelled, Job
from service.jobs.shards import shards
from service.process import ChildDied, Message
from service.schemas.findings import Finding, as_warning, at_level
from service.schemas.methods import THRESHOLDS
from service.settings import Settings
from service.store.catalog import Row
from service.store.checkpoints import check_tokenizer, inspect
from service.store.store import Store

__all__ = ["Scorer"]

SHARD_TOKENS = {"cpu": 2048, "cuda": 65536}  # so that progress and a crash cost little
KEPT_BYTES = 1 << 30  # hidden rows of a shard whose two models do not fit together: it loads one of them
MAX_DEATHS = 3
PUBLISHING = 5  # a publication is a fifth of a scoring's time at most


class Scorer:
    """Does the work of jobs of kind `analysis`."""

    def __init__(self, store: Store, settings: Settings, executor: Executor) -> None:
        self._store, self._settings, self._executor = store, settings, executor
        self._worker: Message | None = None

    def worker(self) -> Message:
        """What the worker runs on: {device, name, dtype, torch}. Starts it the first time."""
        if self._worker is None:
            try:
                self._worker = self._executor.submit({"task": "describe", "device": self._settings.device}).result()
            except ChildDied as error:
                raise WorkerFailed(
                    f"{error.detail} when it was started; is dppo-lens[worker] installed? Its own words are in the "
                    "service's output"
                ) from error
        return self._worker

    def run(self, job: Job) -> dict[str, Any]:
        """The job's request names the analysis; its scorings were recorded when it was asked for."""
        job.on_stop = self._executor.interrupt
        try:
            return self._remeasure(job) if job.request.get("measure") else self._run(job)
        finally:
            job.on_stop = None

    def discard(self, job: Job) -> None:
        """Finished shards and steps stay: they are facts, and the next attempt goes on from them."""

    def _run(self, job: Job) -> dict[str, Any]:
        store = self._store
        analysis = store.analyses.get(job.request["analysis"])
        run = store.runs.get(str(job.run))
        steps = store.analyses.steps(analysis["analysis"])
        available = store.uploads.steps(run["run_id"])
        todo = [step for step in steps if not step["finished"]]
        tasks = {step["step"]: self._prepare(run, step, available) for step in todo}
        total = sum(available[step["step"]]["counted_tokens"] for step in steps if step["step"] in available)
        done = total - sum(available[step["step"]]["counted_tokens"] for step in todo)
        job.progress(done, total)
        if todo and analysis["source"] == "scored":
            self._audit(job, run, todo[0], tasks[todo[0]["step"]])
        notes = self._warn(job, run, steps)
        _warn_approximate(job, [available[step["step"]] for step in steps if step["step"] in available])
        self._score(job, todo, tasks, done)
        if not store.analyses.measured(analysis["analysis"]):
            self._measure(job, analysis, steps)
        store.analyses.set_findings(analysis["analysis"], [*map(as_warning, job.warnings), *notes])
        store.lens.publish()
        return {
            "analysis": analysis["analysis"],
            "steps": [step["step"] for step in steps],
            "skipped_steps": json.loads(analysis["skipped_steps"]),
            "notes": [note["message"] for note in notes],
        }

    def _remeasure(self, job: Job) -> dict[str, Any]:
        """What this version's methods decide of an analysis whose steps are all scored."""
        analysis = self._store.analyses.get(job.request["analysis"])
        if analysis["n_finished"] < analysis["n_steps"]:
            raise Invalid(
                f"{analysis['n_finished']} of {analysis['n_steps']} steps are scored: ask for the analysis again"
            )
        self._measure(job, analysis, self._store.analyses.steps(analysis["analysis"]))
        self._store.lens.publish()
        return {"analysis": analysis["analysis"]}

    def _prepare(self, run: Row, step: Row, available: dict[int, Row]) -> Message:
        """The worker task of a step without its shards; every check that needs no model."""
        inputs = json.loads(step["inputs"])
        rollouts = available.get(step["step"])
        if rollouts is None or rollouts["content"] != inputs["content"]:
            raise Invalid(f"the rollouts of step {step['step']} changed since the analysis was asked for; ask again")
        task: Message = {
            "task": "score",
            "pieces": rollouts["pieces"],
            "old": None,
            "new": None,
            "device": self._settings.device,
            "tokenizer": run["tokenizer"],
            **{name: inputs[name] for name in ("temperature", "top_k", "topk_mode", "dtype", "anchored")},
        }
        if inputs["source"] == "logged":
            return task
        for side in ("old", "new"):
            checkpoint = self._store.checkpoints.get(step[f"{side}_checkpoint"])
            task[side] = self._verified(checkpoint)
            self._check_tokens(checkpoint, step["step"], rollouts["pieces"])
        if task["tokenizer"] is None:
            task["tokenizer"] = self._own_tokenizer(task["new"]["path"])
        return task

    def _verified(self, checkpoint: Row) -> Message:
        """The checkpoint's place, after a look that it is still what was registered."""
        found = inspect(checkpoint["path"], checkpoint["adapter"], self._settings.roots)
        if found.fingerprint != checkpoint["fingerprint"]:
            raise Invalid(
                f"checkpoint {checkpoint['checkpoint']} (step {checkpoint['step']}, {checkpoint['path']}) was "
                "overwritten after it was registered; register it again"
            )
        return {
            "path": found.path,
            "fingerprint": found.base_fingerprint,
            "adapter": found.adapter,
            "adapter_fingerprint": found.adapter_fingerprint,
        }

    def _check_tokens(self, checkpoint: Row, step: int, pieces: list[str]) -> None:
        """The checkpoint must know every token id and have a position for every token."""
        vocab, positions = checkpoint["vocab_size"], checkpoint["max_positions"]
        for piece in pieces:
            table = pq.read_table(
                piece,
                partitioning=None,
                columns=["sample_id", "prompt_token_ids", "response_token_ids", "prompt_tokens", "response_tokens"],
            )
            for name in ("prompt_token_ids", "response_token_ids"):
                highest = pc.max(pc.list_flatten(table[name])).as_py()
                if highest is not None and highest >= vocab:
                    raise Invalid(
                        f"step {step} has token id {highest} in {name}, but checkpoint {checkpoint['path']} knows "
                        f"{vocab} tokens: wrong checkpoint or wrong tokenizer"
                    )
            lengths = pc.add(table["prompt_tokens"], table["response_tokens"])
            longest = pc.max(lengths).as_py()
            if positions is not None and longest > positions:
                sample = table["sample_id"][pc.index(lengths, longest).as_py()].as_py()
                raise Invalid(
                    f"step {step}, sample {sample!r} has {longest} tokens, but checkpoint {checkpoint['path']} has "
                    f"{positions} positions (max_position_embeddings)"
                )

    def _own_tokenizer(self, path: str) -> str | None:
        try:
            return check_tokenizer(path, self._settings.roots)
        except Invalid:
            return None  # tokens are then NULL, as documented

    def _audit(self, job: Job, run: Row, step: Row, task: Message) -> None:
        """Compare what the log says with the models on a few responses, before the minutes are spent."""
        checkpoints = [] if job.request.get("given_pair") else self._store.checkpoints.of_run(run["run_id"])
        beside = {row["step"]: row for row in checkpoints if abs(row["step"] - step["step"]) == 1}

        def ask(question: Message) -> Message:
            samples = f"samples {', '.join(question['sample_ids'])}"
            return self._insist(job, question, job.tokens_done, f"auditing step {step['step']}", samples)

        old = self._store.checkpoints.get(step["old_checkpoint"])
        Audit(self._store, run, step, old).run(task, beside, self._verified, ask)

    def _warn(self, job: Job, run: Row, steps: list[Row]) -> list[Finding]:
        """Warn of what the log may not be; what audits found, and not more where they know. Returns their notes."""
        found = audited(self._store, run["run_id"], steps)
        for finding in at_level("warning", found):
            job.warn(finding["message"])
        notes = at_level("note", found)
        if any("rollout_logprobs" in note["decided"] for note in notes):
            return notes
        if run["temperature"] != 1.0 and run["logprobs_mode"] is None:
            job.warn(
                f"sampling.logprobs_mode was not given at temperature {run['temperature']:g}; the logged log-probs are "
                "taken as processed (temperature applied). Raw ones would show a false mismatch."
            )
        if run["top_p"] < 1 or run["top_k"] > 1:
            job.warn(
                f"sampled with top_p {run['top_p']:g}, top_k {run['top_k']}: processed log-probs are those of a "
                "renormalised nucleus, which shows as a mismatch against the full distribution"
            )
        return notes

    def _score(self, job: Job, todo: list[Row], tasks: dict[int, Message], done: int) -> None:
        """Score the steps and publish each; steps that are scored faster than published wait for the next ones."""
        due = 0.0
        try:
            for step in todo:
                done = self._score_step(job, step, tasks[step["step"]], done)
                if (began := time.monotonic()) >= due:
                    self._store.lens.publish()
                    due = began + PUBLISHING * (time.monotonic() - began)
        finally:
            self._store.lens.publish()

    def _score_step(self, job: Job, step: Row, task: Message, done: int) -> int:
        """Score the shards of one step that are missing, then make the step visible."""
        scoring = step["scoring"]
        folder = self._store.layout.shards(scoring)
        counts: Counter[str] = Counter()
        paths = []
        task, budget = self._in_memory(job, task)
        for samples, tokens in shards(task["pieces"], budget):
            out = folder / f"{content_id('h', [scoring, samples])}.parquet"
            paths.append(out)
            if not out.exists():
                job.checkpoint()
                shard = {**task, "sample_ids": samples, "out": str(out)}
                self._insist(job, shard, done, f"scoring step {step['step']}", f"samples {', '.join(samples[:20])}")
            done += tokens
            job.progress(done)
            counts.update(_counts(out))
        job.checkpoint()
        self._store.analyses.finish(scoring, paths, dict(counts), str(self.worker()["device"]))
        if counts["unusable_lists"]:
            job.warn(f"step {step['step']}: {counts['unusable_lists']} logged top-K lists could not be used")
        if counts["no_rollout_logprob"]:
            job.warn(f"step {step['step']}: {counts['no_rollout_logprob']} tokens have no rollout log-prob")
        return done

    def _in_memory(self, job: Job, task: Message) -> tuple[Message, int]:
        """The step's task with whether both models fit in memory together, and the tokens of a shard.

        A shard of models that do not fit loads one of them, so it is as large as its kept hidden rows may be.
        """
        budget = SHARD_TOKENS[str(self.worker()["device"]).partition(":")[0]]
        if task["old"] is None:
            return task, budget
        checkpoints = " and ".join(task[side]["path"] for side in ("old", "new"))
        room = self._insist(job, {**task, "task": "room"}, job.tokens_done, "making room", checkpoints)
        if not room["together"]:
            budget = max(budget, KEPT_BYTES // room["row_bytes"])
        return {**task, "together": room["together"]}, budget

    def _measure(self, job: Job, analysis: Row, steps: list[Row]) -> None:
        """Every method's decisions and the bounds, over all steps of the analysis."""
        layout = self._store.layout
        task: Message = {
            "task": "measure",
            "segments": [[step["step"], str(layout.segment(step["scoring"]))] for step in steps],
            "evaluated_at": analysis["evaluated_at"],
            "thresholds": {name: analysis[name] for name in THRESHOLDS},
            "out": str(layout.measures(analysis["analysis"])),
        }
        self._call(job, task, job.tokens_done)
        job.checkpoint()
        self._store.analyses.keep_measures(analysis["analysis"])

    def _insist(self, job: Job, task: Message, done: int, doing: str, what: str) -> Message:
        """The result of a task that may be repeated: again when the worker dies, but not for ever."""
        deaths = 0
        while True:
            try:
                return self._call(job, task, done)
            except ChildDied as error:
                job.checkpoint()
                deaths += 1
                if deaths >= MAX_DEATHS:
                    raise WorkerFailed(f"{doing} {error.detail} {MAX_DEATHS} times on {what}") from error

    def _call(self, job: Job, task: Message, done: int = 0) -> Message:
        scored = done

        def on_event(event: Message) -> None:
            nonlocal scored
            scored += event.get("tokens", 0)
            job.progress(max(scored, job.tokens_done))

        try:
            return self._executor.submit(task, on_event).result()
        except ChildDied:
            if job.stop.is_set():
                raise Cancelled from None
            raise


def _counts(shard: Path) -> dict[str, int]:
    """What a finished shard says about itself."""
    metadata = pq.read_schema(shard).metadata or {}
    return {str(name): int(count) for name, count in json.loads(metadata.get(b"counts", b"{}")).items()}


def _warn_approximate(job: Job, steps: list[Row]) -> None:
    """Say it where token ids were made from text: everything that is computed from them is as approximate."""
    marked = 0
    for piece in (piece for step in steps for piece in step["pieces"]):
        table = pq.read_table(piece, partitioning=None, columns=["logprobs_approximate"])
        marked += pc.sum(table["logprobs_approximate"], min_count=0).as_py()
    if marked:
        job.warn(
            f"{marked} of {sum(step['rollouts'] for step in steps)} responses are approximate: token ids made from "
            "text need not be those that were sampled, and every number here that comes from them is approximate too"
        )

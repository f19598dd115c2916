"""Every finding is in the README, under the code that users see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from service.ingest.findings import logprobs, report
from tests.live import REPOSITORY


def codes(path: Path) -> Iterator[str]:
    """The codes that are written out in calls of `Finding(…)` and `Finding.of(…)`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "Finding.of"):
            code = node.args[0]
            if isinstance(code, ast.Constant):
                yield str(code.value)


def test_every_code_is_documented() -> None:
    found = {code for path in Path(str(report.__file__)).parent.glob("*.py") for code in codes(path)}
    found |= {code for code, _, _ in logprobs._PAIRS.values()}
    assert len(found) > 20
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("What is looked for")[1].split("</details>")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == found

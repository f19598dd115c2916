"""Adapters also run beside a trainer, where nothing of the service's environment may be asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.ingest.adapters import ADAPTERS

ROOT = Path(__file__).parents[3]


def test_the_standard_library_is_enough() -> None:
    """Without site-packages, every adapter is imported."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from service.ingest.adapters import ADAPTERS; "
        "print(*[adapter.name for adapter in ADAPTERS])"
    )
    found = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert found.stdout.split() == [adapter.name for adapter in ADAPTERS]


def test_names_are_different() -> None:
    names = [adapter.name for adapter in ADAPTERS]
    assert len(set(names)) == len(names)

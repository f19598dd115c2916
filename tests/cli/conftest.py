"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest.files import Importing


@pytest.fixture
def importing(tmp_path: Path) -> Importing:
    return Importing(tmp_path)

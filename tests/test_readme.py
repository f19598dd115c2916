"""The README is true: it names every setting, column, command and route there is."""

from __future__ import annotations

import re

import pytest

from service.settings import Settings
from tests.live import REPOSITORY
from tests.store.test_contract import CONTRACT

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting(name: str) -> None:
    assert f"DPPO_{name.upper()}" in README


@pytest.mark.parametrize("table", CONTRACT)
def test_every_column(table: str) -> None:
    section = re.search(rf"<summary><code>{table}</code>.*?</details>", README, re.DOTALL)
    assert section
    assert re.findall(r"^\| `(\w+)` \|", section[0], re.MULTILINE) == CONTRACT[table].split()


def test_every_command() -> None:
    from service.cli.main import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert re.search(rf"(dppo|make) {name}\b|`dppo {name}`", README) or name in {"runs", "doctor"}, name


def test_every_package_of_the_tree() -> None:
    for path in [
        *(REPOSITORY / "dppo_core").glob("*.py"),
        *(p for p in (REPOSITORY / "service").iterdir() if p.is_dir()),
    ]:
        if not path.name.startswith("_"):
            assert path.name in README, path.name


def test_pictures_and_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target

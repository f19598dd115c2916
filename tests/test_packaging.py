"""What the distribution, the Makefile and the repository's papers promise."""

from __future__ import annotations

import email.message
import email.parser
import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PACKAGES = ["dppo_core", "service", "web"]
TARGETS = ["help", "install", "demo", "serve", "test", "test-gpu"]
TARGETS += ["check", "format", "bench", "lab", "lab-quick", "browser", "clean"]


def output_of(*command: str) -> str:
    # a make above us would hand its own flags and arguments on to one that we start
    ours = ("MAKE", "MFLAGS", "DEMO_ARGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(command, cwd=ROOT, env=clean, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a release would build it."""
    folder = tmp_path_factory.mktemp("dist")
    output_of(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


def requirements(metadata: email.message.Message, extra: str = "") -> dict[str, SpecifierSet]:
    """Name → version range of what `pip install dppo-lens[extra]` asks for directly."""
    parsed = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return {
        requirement.name: requirement.specifier
        for requirement in parsed
        if (requirement.marker.evaluate({"extra": extra}) if requirement.marker else not extra)
    }


def test_name_python_and_licence(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "dppo-lens"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]


def test_the_base_install_is_light(metadata: email.message.Message) -> None:
    assert set(requirements(metadata)) == {"httpx", "pyarrow", "typer"}


def test_the_base_install_has_no_ceiling(metadata: email.message.Message) -> None:
    """A trainer's environment says which versions there are."""
    for name, versions in requirements(metadata).items():
        assert {version.operator for version in versions} == {">="}, name


def test_extras(metadata: email.message.Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) >= {"server", "worker", "all"}
    assert set(requirements(metadata, "server")) >= {"duckdb", "fastapi", "uvicorn", "plotly"}
    assert set(requirements(metadata, "server")).isdisjoint({"torch", "transformers", "peft"})
    assert set(requirements(metadata, "worker")) >= {"torch", "transformers", "peft", "safetensors"}


def test_all_is_every_other_extra(metadata: email.message.Message) -> None:
    # hatchling writes an extra that names the project's own extras out
    others = [extra for extra in metadata.get_all("Provides-Extra", []) if extra != "all"]
    assert requirements(metadata, "all") == {
        name: version for extra in others for name, version in requirements(metadata, extra).items()
    }


def test_the_torch_range_is_one_everywhere(metadata: email.message.Message) -> None:
    assert requirements(metadata, "worker")["torch"] == SpecifierSet(">=2.8,<2.14")
    (in_image,) = re.findall(r'"torch([^"]*)"', (ROOT / "Dockerfile").read_text())
    assert SpecifierSet(in_image) == SpecifierSet(">=2.8,<2.14")


def test_the_wheel_holds_the_three_packages_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "dppo = service.cli.main:main" in archive.read(scripts).decode()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "tests/" in name or "__pycache__" in name]


def test_templates_sql_and_data_files_are_in_the_wheel(wheel: Path) -> None:
    files = [path for top in PACKAGES for path in (ROOT / top).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        assert wanted - set(archive.namelist()) == set()


def test_the_licence_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert text.count(b"\n") == 202
    # the sha256 of https://www.apache.org/licenses/LICENSE-2.0.txt
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256(text).hexdigest() == digest


def test_the_changelog_keeps_its_form_and_names_the_version(pyproject: dict[str, Any]) -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert "https://keepachangelog.com/" in text
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    newest = releases[1] if releases[1:] else text.split("## [Unreleased]")[1]
    assert pyproject["project"]["version"] in newest


@pytest.mark.parametrize("target", TARGETS)
def test_a_makefile_target_exists(target: str) -> None:
    output_of("make", "--dry-run", target)


def test_help_is_the_default_and_lists_every_target() -> None:
    assert re.findall(r"^  make (\S+) +\S", output_of("make"), re.MULTILINE) == TARGETS


def test_make_demo_passes_its_arguments_on() -> None:
    commands = output_of("make", "--dry-run", "demo", "DEMO_ARGS=--exit").splitlines()
    assert commands[-1] == ".venv/bin/dppo demo --exit"


def test_ci_runs_what_developers_run() -> None:
    assert "\nmake check test\n" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_import_rules_are_all_there(pyproject: dict[str, Any]) -> None:
    contracts = {contract["name"]: contract for contract in pyproject["tool"]["importlinter"]["contracts"]}
    assert set(contracts) == {
        "One way through the house",
        "The worker stands beside the layers",
        "dppo_core and web stand alone",
        "dppo_core and web do not know the service",
        "Only the worker does mathematics",
        "No torch outside the worker and dppo_core",
        "The client is light",
    }
    first, second, third, lowest = contracts["One way through the house"]["layers"]
    assert (first, second, third) == ("cli", "api", "ingest : store : jobs")
    assert lowest.split(" : ")[:3] == ["schemas", "settings", "errors"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("service.client", ["torch", "duckdb", "fastapi", "pydantic"]),
        ("service.cli.main", ["torch", "duckdb", "fastapi"]),
        ("dppo_core.methods.catalog", ["torch"]),  # the API imports it
    ],
)
def test_importing_it_stays_light(module: str, heavy: list[str]) -> None:
    program = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    assert output_of(sys.executable, "-c", program).split() == []

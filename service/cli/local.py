"""Commands that need the server's or the worker's packages on this machine: `serve` and `doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from service.cli.output import Output, fail

if TYPE_CHECKING:
    from service.settings import Settings

__all__ = ["doctor_command", "need", "serve_command", "settings_from"]

PACKAGES = ("dppo-lens", "duckdb", "fastapi", "plotly", "pyarrow", "torch", "transformers", "peft", "safetensors")


def need(output: Output, extra: str, *packages: str) -> None:
    """Stop with the install command where an extra is missing."""
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            fail(output, f"{package} is not installed: pip install 'dppo-lens[{extra}]'")


def settings_from(output: Output, **flags: Any) -> Settings:
    """Settings from flags over environment over defaults."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None and value is not False})
    except ValidationError as error:
        first = error.errors()[0]
        fail(output, f"DPPO_{'_'.join(str(part) for part in first['loc']).upper()}: {first['msg']}")


def serve_command(output: Output, **flags: Any) -> None:
    """`dppo serve`."""
    need(output, "server", "fastapi", "uvicorn", "duckdb")
    from service.cli.serve import run_server
    from service.errors import Locked

    settings = settings_from(output, **flags)

    def ready(url: str) -> None:
        output.result(
            {"url": url, "data_dir": str(settings.data_dir.resolve()), "pid": os.getpid()},
            f"DPPO Lens at {url}  (data in {settings.data_dir.resolve()}; Ctrl-C stops)",
        )
        sys.stdout.flush()

    try:
        run_server(settings, ready)
    except Locked as error:
        fail(output, error.detail, error.problem())


def doctor_command(output: Output, server: str) -> None:
    """`dppo doctor`."""
    found: dict[str, Any] = {"python": platform.python_version(), "packages": {}}
    for package in PACKAGES:
        try:
            found["packages"][package] = version(package)
        except PackageNotFoundError:
            found["packages"][package] = None
    found["worker"] = _worker() if found["packages"]["torch"] and found["packages"]["transformers"] else None
    data_dir = Path(os.environ.get("DPPO_DATA_DIR", "data")).resolve()
    found["data_dir"] = str(data_dir)
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    found["free_bytes"] = shutil.disk_usage(existing).free
    try:
        found["server"] = httpx.get(f"{server}/readyz", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        found["server"] = None
    output.result(found, _report(found, server))


def _worker() -> dict[str, Any]:
    from service.errors import LensError
    from service.process import Child

    child = Child("service.worker")
    try:
        return child.call({"task": "describe", "device": os.environ.get("DPPO_DEVICE", "auto")}, timeout=120)
    except LensError as error:
        return {"error": error.detail}
    except TimeoutError:
        return {"error": "the worker did not answer within two minutes"}
    finally:
        child.kill()


def _report(found: dict[str, Any], server: str) -> str:
    packages = "  ".join(f"{name} {number or '(missing)'}" for name, number in found["packages"].items())
    worker = found["worker"]
    if worker is None:
        device = "no worker here: pip install 'dppo-lens[worker]'"
    elif "error" in worker:
        device = worker["error"]
    else:
        device = (
            f"{worker['device']} ({worker['name']}), dtype {worker['dtype']} by default, "
            f"{worker['threads']} threads; set DPPO_DEVICE=auto|cpu|cuda|cuda:N"
        )
    status = found["server"]
    return "\n".join(
        [
            f"python    {found['python']}",
            f"packages  {packages}",
            f"device    {device}",
            f"data      {found['data_dir']} ({found['free_bytes'] / 2**30:.1f} GiB free)",
            f"server    {server}: " + ("nothing answers" if status is None else str(status.get("status"))),
        ]
    )

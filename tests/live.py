"""A real server process for tests: `dppo serve` on a free port, its own data directory, real HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent


class Server:
    """`with Server(data_dir) as server:` starts it; `server.api` is an httpx client with base URL …/api/v1."""

    def __init__(self, data_dir: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DPPO_")},
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Server:
        """Start and wait until it answers."""
        self.log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("a+", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "service.cli.main",
                "serve",
                "--port",
                "0",
                "--data-dir",
                str(self.data_dir),
                *self._arguments,
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env=self._env,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.findall(r"http://\S+:\d+", self.output())
            if found:
                self.url = found[-1]
                self.api = httpx.Client(base_url=f"{self.url}/api/v1", timeout=60)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        output = self.output()
        self.log.close()
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"the server did not start:\n{output}")

    def output(self) -> str:
        """What it printed since the last start."""
        self.log.flush()
        text = Path(self.log.name).read_text(encoding="utf-8")
        return text[getattr(self, "_mark", 0) :]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)
        self._mark = len(Path(self.log.name).read_text(encoding="utf-8"))
        self.api.close()
        self.log.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, job: dict[str, Any], seconds: float = 300) -> dict[str, Any]:
        """The job when it has ended, however it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.api.get(f"/jobs/{job['id']}").json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"still {job['state']} after {seconds} s: {job}")

    def upload(self, run: str, records: list[dict[str, Any]] | bytes, **parameters: Any) -> dict[str, Any]:
        """Upload records (or bytes) and wait for the import job."""
        body = records if isinstance(records, bytes) else b"".join(json.dumps(r).encode() + b"\n" for r in records)
        response = self.api.put(
            f"/runs/{run}/rollouts", content=body, params=parameters, headers={"content-type": "application/x-ndjson"}
        )
        assert response.status_code == 202, response.text
        return self.wait(response.json())

    def analyze(self, run: str, seconds: float = 300, **body: Any) -> dict[str, Any]:
        """Ask for an analysis and wait for it."""
        response = self.api.post(f"/runs/{run}/analyses", json=body)
        assert response.status_code == 202, response.text
        return self.wait(response.json(), seconds)

"""`Client.serve`: a service of a script's or a notebook's own, which ends with it."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from service.client.client import Client

__all__ = ["ServingClient"]


class ServingClient(Client):
    """A client together with its service, which ends when the client is closed, at the latest with this process."""

    def __init__(self, data_dir: Path) -> None:
        command = [sys.executable, "-m", "service.cli.main", "serve", "--data-dir", str(data_dir)]
        with tempfile.TemporaryFile("w+") as words:
            self._service = subprocess.Popen(  # noqa: S603 our own module
                [*command, "--host", "127.0.0.1", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                start_new_session=True,  # interrupting a cell does not stop the service
            )
            atexit.register(self._stop)
            assert self._service.stdout is not None
            found = re.search(r"http://\S+", self._service.stdout.readline())
            if found is None:
                self._stop()
                words.seek(0)
                raise RuntimeError(f"dppo serve did not start: {words.read().strip()}")
        super().__init__(found[0], os.environ.get("DPPO_TOKEN") or None)

    def close(self) -> None:
        """Close the connections and stop the service."""
        super().close()
        self._stop()

    def _stop(self) -> None:
        atexit.unregister(self._stop)
        self._service.terminate()
        self._service.communicate()

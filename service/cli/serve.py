"""`dppo serve`: the service on one data directory."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from service.api.app import create_app
from service.api.security import check_bind
from service.api.state import open_services
from service.errors import Locked
from service.settings import Settings

__all__ = ["Announcing", "make_server", "run_server"]


class Announcing(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[str], object]) -> None:
        super().__init__(config)
        self._listener, self._on_ready = listener, on_ready

    def serve_forever(self) -> None:
        """Serve until interrupted."""
        with self._listener:
            self.run(sockets=[self._listener])

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn, then announce the address (with the port that was really taken)."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def make_server(settings: Settings, on_ready: Callable[[str], object]) -> Announcing:
    """Take the address and the data directory. Raises `Locked` where one of them is not ours to take."""
    check_bind(settings)
    listener = _listen(settings.host, settings.port)
    try:
        taken = settings.model_copy(update={"port": listener.getsockname()[1]})  # what others are told
        app = create_app(open_services(taken))
    except BaseException:
        listener.close()
        raise
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        lifespan="on",
        timeout_graceful_shutdown=3,
        server_header=False,
        access_log=False,
    )
    return Announcing(config, listener, on_ready)


def run_server(settings: Settings, on_ready: Callable[[str], object]) -> None:
    """Serve until interrupted; `on_ready(url)` is called when the service answers. Raises as `make_server`."""
    make_server(settings, on_ready).serve_forever()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Locked(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    return listener

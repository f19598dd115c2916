"""Pages of a large analysis are worked out ahead, so that opening them asks the store for nothing new."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api import prefill
from service.api.app import create_app
from service.api.state import open_services
from service.settings import Settings
from tests.store.handmade import ANALYSIS, analysed
from tests.store.test_carried import TOKENS


@pytest.mark.parametrize("token", [None, "secret"])
def test_pages_are_opened_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.setattr(prefill, "LEAST_TOKENS", 2)
    monkeypatch.setattr(prefill, "SECONDS", 0.01)
    with analysed(tmp_path, {0: TOKENS}):
        pass
    services = open_services(Settings(data_dir=tmp_path / "data", token=token))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with TestClient(create_app(services), base_url="http://127.0.0.1", headers=headers) as client:
        deadline = time.monotonic() + 60
        while ANALYSIS not in client.app.state.prefill._opened and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "dppo_pages_to_prefill 0" in client.get("/metrics").text
        lens, asked = services.store.lens, []
        results = lens._current().results
        answer = results.get
        monkeypatch.setattr(results, "get", lambda what, work: asked.append(what) or answer(what, work))
        kept = set(results._asked)
        for path in ("", "/tokens", "/approximation", "/mismatch", "/methods", "/theory", "/parts/intervals"):
            assert client.get(f"/analyses/{ANALYSIS}{path}").status_code == 200
        for name in ("ratio_plane", "bins", "most_clipped"):
            assert client.get(f"/api/v1/analyses/{ANALYSIS}/figures/{name}").status_code == 200
        assert len(asked) > 30
        assert set(asked) <= kept


def test_small_analyses_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "SECONDS", 0.01)
    with analysed(tmp_path, {0: TOKENS}):
        pass
    services = open_services(Settings(data_dir=tmp_path / "data"))
    with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
        time.sleep(0.3)
        assert client.app.state.prefill._opened == {}
        assert not services.store.lens._current().results._asked

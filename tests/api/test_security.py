"""Bind, token, cookie and header rules, on real sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import Server

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("guarded") / "data"
    with Server(data, env={"DPPO_TOKEN": TOKEN, "DPPO_ALLOWED_HOSTS": "lens.example, other.example"}) as server:
        yield server


def test_the_api_needs_the_token(guarded: Server) -> None:
    refused = guarded.api.get("/runs")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json"
    for header in ("Bearer wrong", "Basic abc", "Bearer", TOKEN):
        assert guarded.api.get("/runs", headers={"authorization": header}).status_code == 401
    assert guarded.api.get("/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert httpx.get(f"{guarded.url}/metrics").status_code == 401


def test_health_is_open_and_pages_lead_to_the_log_in(guarded: Server) -> None:
    assert httpx.get(f"{guarded.url}/healthz").json() == {"status": "ok"}
    page = httpx.get(f"{guarded.url}/runs/x?step=1")
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=%2Fruns%2Fx%3Fstep%3D1"


def test_a_cookie_after_log_in(guarded: Server) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        wrong = browser.post("/login", data={"token": "wrong", "next": "/"})
        assert wrong.status_code == 401
        assert "set-cookie" not in wrong.headers
        right = browser.post("/login", data={"token": TOKEN, "next": "/"})
        assert right.status_code == 303
        assert right.headers["location"] == "/"
        cookie = right.headers["set-cookie"].lower()
        assert "samesite=strict" in cookie
        assert "httponly" in cookie
        assert TOKEN not in right.headers["set-cookie"]
        assert browser.get("/api/v1/runs").status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_log_in_leads_nowhere_else(guarded: Server, target: str) -> None:
    response = httpx.post(f"{guarded.url}/login", data={"token": TOKEN, "next": target})
    assert response.headers["location"] == "/"


def test_more_host_names_can_be_allowed(guarded: Server) -> None:
    for host, status in (("lens.example", 200), ("other.example:8", 200), ("evil.example", 421), ("", 421)):
        assert httpx.get(f"{guarded.url}/healthz", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_another_address_needs_a_token_or_a_decision(tmp_path: Path, host: str) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "service.cli.main",
            "serve",
            "--host",
            host,
            "--port",
            "0",
            "--data-dir",
            str(tmp_path / "d"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "DPPO_TOKEN" in result.stderr
    assert "--unsafe-no-auth" in result.stderr
    assert not (tmp_path / "d").exists(), "nothing is touched"


def test_an_empty_token_is_no_token(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--host", "0.0.0.0", "--unsafe-no-auth", env={"DPPO_TOKEN": ""}) as server:
        port = server.url.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/runs").status_code == 200


def test_every_answer_carries_the_headers(guarded: Server) -> None:
    for path in ("/login", "/healthz", "/api/v1/runs", "/static/nothing.js", "/favicon.ico"):
        headers = httpx.get(guarded.url + path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_no_page_of_another_site_can_change_anything(guarded: Server) -> None:
    authorised = {"authorization": f"Bearer {TOKEN}"}
    form = guarded.api.post(
        "/runs", content=b"run=x", headers={**authorised, "content-type": "application/x-www-form-urlencoded"}
    )
    assert form.status_code == 415
    text = guarded.api.post("/runs", content=b'{"run": "x"}', headers={**authorised, "content-type": "text/plain"})
    assert text.status_code == 415
    preflight = guarded.api.options(
        "/runs", headers={**authorised, "origin": "https://evil.example", "access-control-request-method": "PUT"}
    )
    assert "access-control-allow-origin" not in preflight.headers

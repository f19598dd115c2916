"""docker-compose.yml and the Dockerfile keep their promises; no Docker engine is needed to see it."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCHEMA = Path(__file__).parent / "data" / "compose-spec.json"
LENSES = ["lens", "lens-gpu"]


def interpolated(node: Any, variables: dict[str, str]) -> Any:
    """What Compose makes of `${NAME:-default}` and `$$`, in every string below `node`."""
    if isinstance(node, dict):
        return {key: interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, variables) for value in node]
    if isinstance(node, str):
        return re.sub(
            r"\$(?:\$|\{(\w+):-([^}]*)\})", lambda match: variables.get(match[1], match[2]) if match[1] else "$", node
        )
    return node


def compose(**variables: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return {key: interpolated(value, variables) for key, value in document.items()}


def instruction(name: str) -> str:
    """The arguments of the Dockerfile's last instruction of that name, continuation lines joined."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")][-1]


def mounts(service: dict[str, Any]) -> dict[str, list[str]]:
    """Container path → [host path, options…] of the short volume syntax."""
    parts = [volume.split(":") for volume in service["volumes"]]
    return {target: [source, *options] for source, target, *options in parts}


def test_the_file_is_valid_by_the_compose_specification() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(compose())


def test_the_schema_is_the_real_one() -> None:
    """A schema that accepts anything would make the test above mean nothing."""
    broken = compose()
    broken["services"]["lens"]["port"] = broken["services"]["lens"].pop("ports")
    with pytest.raises(jsonschema.ValidationError, match="'port' was unexpected"):
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(broken)


@pytest.mark.parametrize(("variables", "port"), [({}, "8000"), ({"DPPO_PORT": "9000"}, "9000")])
def test_every_published_port_is_on_loopback_only(variables: dict[str, str], port: str) -> None:
    services = compose(**variables)["services"]
    for name in LENSES:
        assert services[name]["ports"] == [f"127.0.0.1:{port}:8000"]
        assert "network_mode" not in services[name]
    assert [name for name in services if "ports" in services[name]] == LENSES


def test_serving_every_address_without_a_token_needs_the_loopback_publication() -> None:
    for name in LENSES:
        service = compose()["services"][name]
        assert service["command"] == ["serve", "--host", "0.0.0.0", "--port", "8000", "--unsafe-no-auth"]
        assert service["environment"]["DPPO_TOKEN"] is None  # passed on where it is set, else absent


def test_the_image_alone_asks_for_a_token() -> None:
    assert json.loads(instruction("CMD")) == ["serve", "--host", "0.0.0.0", "--port", "8000"]
    assert json.loads(instruction("ENTRYPOINT")) == ["dppo"]
    assert instruction("EXPOSE") == "8000"
    assert instruction("USER") == "dppo"


def test_only_the_gpu_profile_reserves_an_nvidia_device() -> None:
    services = compose()["services"]
    assert services["lens-gpu"]["profiles"] == ["gpu"]
    assert services["lens-gpu"]["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    assert services["lens-gpu"]["environment"]["DPPO_DEVICE"] == "cuda"
    assert "profiles" not in services["lens"]
    assert "deploy" not in services["lens"]


def test_both_services_come_from_one_dockerfile_and_differ_in_torch() -> None:
    builds = [compose()["services"][name]["build"] for name in LENSES]
    assert [(build["context"], build["dockerfile"]) for build in builds] == [(".", "Dockerfile")] * 2
    declared, default = instruction("ARG").split("=")
    assert [build["args"][declared] for build in builds] == [default, "https://pypi.org/simple"]
    assert default == "https://download.pytorch.org/whl/cpu"
    assert f'--index-url "${declared}"' in (ROOT / "Dockerfile").read_text()


def test_data_and_checkpoints_are_bind_mounts_where_the_environment_says() -> None:
    document = compose()
    assert "volumes" not in document  # no named volumes
    for name in LENSES:
        service = document["services"][name]
        environment, mounted = service["environment"], mounts(service)
        assert mounted == {"/data": ["./data"], "/checkpoints": ["./checkpoints", "ro"]}
        assert environment["DPPO_DATA_DIR"] == "/data"
        assert environment["DPPO_CHECKPOINT_ROOTS"] == "/checkpoints"
        assert environment["HF_HOME"] == "/data/huggingface"  # below a mount that may be written
    moved = compose(DPPO_CHECKPOINTS="/models")["services"]["lens"]
    assert mounts(moved)["/checkpoints"] == ["/models", "ro"]


def test_the_image_has_the_same_paths_and_health_check() -> None:
    image = dict(pair.split("=", 1) for pair in instruction("ENV").split())
    for name in LENSES:
        service = compose()["services"][name]
        for variable in ("DPPO_DATA_DIR", "DPPO_CHECKPOINT_ROOTS", "HF_HOME"):
            assert service["environment"][variable] == image[variable]
        options, _, command = instruction("HEALTHCHECK").partition("CMD ")
        check = service["healthcheck"]
        assert check["test"] == ["CMD", *json.loads(command)]
        assert "'GET', '/healthz'" in check["test"][-1]
        for option in ("interval", "timeout", "retries"):
            assert f"--{option}={check[option]}" in options
        assert f"--start-period={check['start_period']}" in options


class Answer(http.server.BaseHTTPRequestHandler):
    """A service with nothing but /healthz."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_request(self, *_: Any) -> None:
        """Keep the test's output quiet."""


def test_the_health_check_tells_a_healthy_service_from_others() -> None:
    check = compose()["services"]["lens"]["healthcheck"]["test"][-1]
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        here = check.replace("8000", str(server.server_port))
        healthy = subprocess.run([sys.executable, "-c", here])
        elsewhere = subprocess.run([sys.executable, "-c", here.replace("/healthz", "/other")])
        server.shutdown()
    gone = subprocess.run([sys.executable, "-c", here], capture_output=True)
    assert [done.returncode for done in (healthy, elsewhere, gone)] == [0, 1, 1]


def test_the_services_are_not_root() -> None:
    for name in LENSES:
        assert compose()["services"][name]["user"] == "1000:1000"
        assert compose(DPPO_UID="1001", DPPO_GID="100")["services"][name]["user"] == "1001:100"
        assert compose()["services"][name]["cap_drop"] == ["ALL"]


def prepare(folder: Path, **variables: str) -> str:
    """Run what the `prepare` service runs, on `folder` in place of /data; returns what it printed."""
    service = compose(**variables)["services"]["prepare"]
    script = service["command"][0].replace("/data\n", f"{folder}\n").replace("/data)", f"{folder})")
    done = subprocess.run([*service["entrypoint"], script], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give a directory away")
def test_a_data_directory_of_root_is_handed_over(tmp_path: Path) -> None:
    assert prepare(tmp_path) == ""
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (1000, 1000)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give a directory away")
def test_a_data_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    os.chown(tmp_path, 1001, 100)
    assert "put DPPO_UID=1001 and DPPO_GID=100 in .env" in prepare(tmp_path)
    assert prepare(tmp_path, DPPO_UID="1001") == ""
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (1001, 100)


def test_prepare_has_no_network_and_needs_no_other_image() -> None:
    services = compose()["services"]
    assert services["prepare"]["network_mode"] == "none"
    assert services["prepare"]["cap_add"] == ["CHOWN"]
    assert services["prepare"]["image"] == instruction("FROM")
    assert mounts(services["prepare"]) == {"/data": ["./data"]}
    for name in LENSES:
        assert services[name]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}

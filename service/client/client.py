"""`Client`: one method a route, plus `wait`. pyarrow and plotly are loaded by the methods that need them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import pyarrow as pa

    from service.client.local import LocalClient

__all__ = ["ApiError", "Client"]

Json = dict[str, Any]
OnBytes = Callable[[int, int], None]
CONTENT_TYPES = {
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".parquet": "application/vnd.apache.parquet",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
}
BLOCK = 1 << 18
POLL_SECONDS = 0.3
TIMEOUT = httpx.Timeout(60, read=None)


class ApiError(Exception):
    """The service said no. `problem` is its problem document (RFC 9457); the text says what was wrong and where."""

    def __init__(self, problem: Json) -> None:
        self.problem = problem
        lines = [str(problem.get("detail") or problem.get("title") or "unknown error")]
        for error in problem.get("errors", []):
            where = ", ".join(
                part
                for part in (f"line {error['line']}" if error.get("line") is not None else "", error.get("field") or "")
                if part
            )
            lines.append(f"  {where}: {error['message']}" if where else f"  {error['message']}")
        super().__init__("\n".join(lines))


class Client:
    """Talks to a DPPO Lens service. Raises `ApiError` for what the service refuses, httpx errors for the network."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", token: str | None = None, timeout: httpx.Timeout = TIMEOUT
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout)

    @staticmethod
    def local(data_dir: Path | str) -> LocalClient:
        """Read a data directory without a service, or beside one. Needs duckdb."""
        from service.client.local import LocalClient

        return LocalClient(Path(data_dir))

    @staticmethod
    def serve(data_dir: Path | str) -> Client:
        """Start a service on a data directory, on a free port; it ends with `close`, at the latest with this process.

        Needs dppo-lens[server]. Raises RuntimeError where it does not start: another service has the directory.
        """
        from service.client.serving import ServingClient

        return ServingClient(Path(data_dir))

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._http.request(method, path, **options)
        _raise_for(response)
        return response

    def runs(self) -> list[Json]:
        """All runs, newest first."""
        return list(self._call("GET", "/runs").json())

    def run(self, run: str) -> Json:
        """One run."""
        return dict(self._call("GET", f"/runs/{quote(run, safe='')}").json())

    def create_run(self, run: str, **body: Any) -> Json:
        """Create a run: framework, sampling={temperature, top_p, top_k, logprobs_mode}, tokenizer, meta."""
        return dict(self._call("POST", "/runs", json={"run": run, **body}).json())

    def upload(self, run: str, file: Path, on_bytes: OnBytes | None = None, **parameters: Any) -> Json:
        """Upload a rollout file and return the import job. parameters: format, step, replace='step'."""
        size = file.stat().st_size

        def blocks() -> Iterator[bytes]:
            sent = 0
            with file.open("rb") as stream:
                while block := stream.read(BLOCK):
                    yield block
                    sent += len(block)
                    if on_bytes:
                        on_bytes(sent, size)

        given = {name: value for name, value in parameters.items() if value is not None}
        return dict(
            self._call(
                "PUT",
                f"/runs/{quote(run, safe='')}/rollouts",
                content=blocks(),
                params={"filename": file.name, **given},
                headers={
                    "Content-Type": CONTENT_TYPES.get(file.suffix, "application/octet-stream"),
                    "Content-Length": str(size),
                },
            ).json()
        )

    def add_checkpoint(
        self, run: str, step: int, path: str, adapter: str | None = None, label: str | None = None
    ) -> Json:
        """Register the policy before `step`."""
        body = {"step": step, "path": path, "adapter": adapter, "label": label}
        return dict(self._call("POST", f"/runs/{quote(run, safe='')}/checkpoints", json=body).json())

    def analyze(self, run: str, **body: Any) -> Json:
        """Ask for an analysis and return its job. body: steps, old, new, anchor, evaluated_at, thresholds, …"""
        return dict(self._call("POST", f"/runs/{quote(run, safe='')}/analyses", json=body).json())

    def job(self, job: str) -> Json:
        """One job."""
        return dict(self._call("GET", f"/jobs/{job}").json())

    def wait(self, job: Json, on_progress: Callable[[Json], None] | None = None) -> Json:
        """The finished job; raises `ApiError` if it failed or was cancelled."""
        while job["state"] in ("queued", "running"):
            if on_progress:
                on_progress(job)
            time.sleep(POLL_SECONDS)
            job = self.job(job["id"])
        if on_progress:
            on_progress(job)
        if job["state"] == "failed":
            raise ApiError(job["error"])
        if job["state"] == "cancelled":
            raise ApiError({"title": "Cancelled", "status": 409, "detail": f"job {job['id']} was cancelled"})
        return job

    def uploads(self, run: str) -> list[Json]:
        """A run's uploads, oldest first."""
        return list(self._call("GET", f"/runs/{quote(run, safe='')}/uploads").json())

    def checkpoints(self, run: str) -> list[Json]:
        """A run's checkpoints by step."""
        return list(self._call("GET", f"/runs/{quote(run, safe='')}/checkpoints").json())

    def analyses(self, run: str) -> list[Json]:
        """A run's analyses, newest first."""
        return list(self._call("GET", f"/runs/{quote(run, safe='')}/analyses").json())

    def analysis(self, analysis: str) -> Json:
        """One analysis with its steps."""
        return dict(self._call("GET", f"/analyses/{analysis}").json())

    def table(self, analysis: str, name: str, **view: Any) -> pa.Table:
        """A table of an analysis (cells, step_summary, timeline, …) under a view, as Arrow."""
        given = {key: value for key, value in view.items() if value is not None}
        response = self._call("GET", f"/analyses/{analysis}/tables/{name}", params={**given, "format": "arrow"})
        return _table(response)

    def tokens(self, analysis: str, step: int, sample_id: str, **view: Any) -> pa.Table:
        """Every token of one response under a view, as Arrow; masked ones have nulls."""
        wanted = {**view, "step": step, "sample_id": sample_id, "format": "arrow"}
        return _table(self._call("GET", f"/analyses/{analysis}/tokens", params=wanted))

    def figure(self, analysis: str, name: str, **view: Any) -> go.Figure:
        """A figure of an analysis (ratio_plane, tv_plane, timeline, strip, …) under a view. Needs plotly."""
        return self._figure(f"/analyses/{analysis}/figures/{name}", view)

    def run_figure(self, run: str, name: str, **options: Any) -> go.Figure:
        """A figure over a run's steps. options: theme, analysis. Needs plotly."""
        return self._figure(f"/runs/{quote(run, safe='')}/figures/{name}", options)

    def _figure(self, path: str, options: dict[str, Any]) -> go.Figure:
        import plotly.io

        given = {key: value for key, value in options.items() if value is not None}
        return plotly.io.from_json(self._call("GET", path, params=given).text)

    def sql(self, statement: str) -> pa.Table:
        """The result of one SELECT over the contract's tables, as Arrow."""
        return _table(self._call("POST", "/sql", json={"sql": statement}))

    def export(self, analysis: str, file: Path, on_bytes: OnBytes | None = None) -> None:
        """Download an analysis as one native DuckDB file."""
        partial = file.with_name(file.name + ".partial")
        with self._http.stream("GET", f"/analyses/{analysis}/database") as response:
            if response.is_error:
                response.read()
            _raise_for(response)
            total = int(response.headers.get("Content-Length", 0))
            with partial.open("wb") as stream:
                for block in response.iter_bytes(BLOCK):
                    stream.write(block)
                    if on_bytes:
                        on_bytes(stream.tell(), total)
        partial.replace(file)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _table(response: httpx.Response) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(response.content).read_all()


def _raise_for(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        raise ApiError(response.json())
    raise ApiError(
        {
            "title": response.reason_phrase,
            "status": response.status_code,
            "detail": f"{response.url} answered {response.status_code}; is it a DPPO Lens service?",
        }
    )

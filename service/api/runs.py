"""Runs, checkpoints and uploads."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.jobs import job_out
from service.api.state import Services, ServicesDep
from service.errors import DiskFull, Invalid, TooLarge, UnsupportedMedia
from service.ids import content_id, new_id
from service.ingest.adapters import choose
from service.layout import fsync_path
from service.schemas.requests import CreateCheckpoint, CreateRun
from service.schemas.responses import CheckpointOut, JobOut, RunOut, UploadOut
from service.store.checkpoints import check_tokenizer, inspect
from service.store.hub import resolve

__all__ = ["router"]

router = APIRouter(tags=["runs"])

BODY_TYPES = {
    "application/x-ndjson",
    "application/json",
    "application/gzip",
    "application/zstd",
    "application/vnd.apache.parquet",
    "application/octet-stream",
}
BLOCK = 1 << 20


@router.post("/runs", status_code=201)
def create_run(body: CreateRun, services: ServicesDep, response: Response) -> RunOut:
    """Create a run: how its rollouts were sampled belongs to it."""
    tokenizer = check_tokenizer(body.tokenizer, services.settings.roots) if body.tokenizer else None
    row = services.store.runs.create(body.run, body.framework, body.sampling.model_dump(), tokenizer, body.meta)
    services.store.lens.publish()
    response.headers["Location"] = f"/api/v1/runs/{body.run}"
    return RunOut.of(row)


@router.get("/runs")
def list_runs(services: ServicesDep) -> list[RunOut]:
    """All runs, newest first."""
    return [RunOut.of(row) for row in services.store.runs.all()]


@router.get("/runs/{run}")
def get_run(run: str, services: ServicesDep) -> RunOut:
    """One run."""
    return RunOut.of(services.store.runs.get(run))


@router.delete("/runs/{run}", status_code=204)
def delete_run(run: str, services: ServicesDep) -> None:
    """Delete a run with its uploads, checkpoints registrations and analyses; its jobs are cancelled."""
    services.jobs.cancel_run(services.store.runs.get(run)["run_id"])
    services.store.delete_run(run)


@router.put("/runs/{run}/rollouts", status_code=202)
async def put_rollouts(
    run: str,
    request: Request,
    services: ServicesDep,
    response: Response,
    format: Annotated[str, Query(max_length=100)] = "auto",  # noqa: A002 the contract's name
    step: Annotated[int | None, Query(ge=0, lt=2**32)] = None,
    filename: Annotated[str | None, Query(max_length=500)] = None,
    replace: Literal["step"] | None = None,
) -> JobOut:
    """Upload rollouts as the raw body; the content decides what it is. The job says what was found in it."""
    row = await run_in_threadpool(services.store.runs.get, run)
    kind = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    if kind not in BODY_TYPES:
        raise UnsupportedMedia(f"content type {kind!r}; send one of {', '.join(sorted(BODY_TYPES))}")
    choose(format, frozenset())  # a format that does not exist is refused before the body is read
    job_id = new_id("j")
    path = services.store.layout.incoming / f"{job_id}.body"
    try:
        size, digest = await _receive(request, path, services)
        if size == 0:
            raise Invalid("the body is empty; send the file as the request body")
        upload = content_id("u", [row["run_id"], digest, format, step])
        asked = {
            "upload": upload,
            "path": str(path),
            "filename": filename,
            "bytes": size,
            "sha256": digest,
            "format": format,
            "step": step,
            "replace": replace == "step",
        }
        job = await run_in_threadpool(services.jobs.submit, "import", row["run_id"], run, asked, job_id)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    response.headers["Location"] = f"/api/v1/jobs/{job.job}"
    return job_out(job)


async def _receive(request: Request, path: Path, services: Services) -> tuple[int, str]:
    """Stream the body to disk: its size and sha256. Limits are checked while it arrives."""
    settings = services.settings
    announced = int(request.headers.get("content-length") or 0)
    if max(announced, 0) > settings.max_upload_bytes:
        raise TooLarge(f"{announced} bytes; DPPO_MAX_UPLOAD_BYTES is {settings.max_upload_bytes}")
    hasher, size, block = hashlib.sha256(), 0, bytearray()

    with path.open("wb") as file:

        def write(data: bytes) -> None:
            if services.store.free_bytes() - len(data) < settings.min_free_bytes:
                raise DiskFull(f"less than {settings.min_free_bytes >> 20} MiB would be left on the data disk")
            hasher.update(data)
            file.write(data)

        try:
            async for chunk in request.stream():
                block += chunk
                size += len(chunk)
                if size > settings.max_upload_bytes:
                    raise TooLarge(f"more than DPPO_MAX_UPLOAD_BYTES = {settings.max_upload_bytes} bytes")
                if len(block) >= BLOCK:
                    await run_in_threadpool(write, bytes(block))
                    block.clear()
        except ClientDisconnect as error:
            raise asyncio.CancelledError from error
        await run_in_threadpool(write, bytes(block))
        file.flush()
        await run_in_threadpool(os.fsync, file.fileno())
    await run_in_threadpool(fsync_path, path.parent)
    return size, hasher.hexdigest()


@router.get("/runs/{run}/uploads")
def list_uploads(run: str, services: ServicesDep) -> list[UploadOut]:
    """A run's uploads, oldest first."""
    return [UploadOut.of(row) for row in services.store.uploads.of_run(services.store.runs.get(run)["run_id"])]


@router.get("/uploads/{upload}")
def get_upload(upload: str, services: ServicesDep) -> UploadOut:
    """One upload."""
    return UploadOut.of(services.store.uploads.get(upload))


@router.delete("/uploads/{upload}", status_code=204)
def delete_upload(upload: str, services: ServicesDep) -> None:
    """Take an upload's rollouts away; analyses of its steps become stale."""
    services.store.uploads.delete(upload)
    services.store.lens.publish()


@router.post("/runs/{run}/checkpoints", status_code=201)
def create_checkpoint(run: str, body: CreateCheckpoint, services: ServicesDep, response: Response) -> CheckpointOut:
    """Register the policy before `step`; it is looked at, not loaded."""
    row = services.store.runs.get(run)
    path = resolve(body.path, services.settings)
    found = inspect(path, body.adapter, services.settings.roots)
    checkpoint = services.store.checkpoints.add(row["run_id"], body.step, body.label, found)
    services.store.lens.publish()
    response.headers["Location"] = f"/api/v1/runs/{run}/checkpoints"
    return CheckpointOut.of(checkpoint)


@router.get("/runs/{run}/checkpoints")
def list_checkpoints(run: str, services: ServicesDep) -> list[CheckpointOut]:
    """A run's checkpoints by step."""
    rows = services.store.checkpoints.of_run(services.store.runs.get(run)["run_id"])
    return [CheckpointOut.of(row) for row in rows]


@router.delete("/checkpoints/{checkpoint}", status_code=204)
def delete_checkpoint(checkpoint: str, services: ServicesDep) -> None:
    """Forget a registration; files and analyses stay."""
    services.store.checkpoints.delete(checkpoint)
    services.store.lens.publish()

"""The import process: `python -m service.ingest`, started by `service.process.Child`."""

from __future__ import annotations

import os

# Both are read when the libraries are imported. mimalloc would reserve a GiB, which RLIMIT_DATA counts; nothing here
# multiplies matrices, but idle BLAS threads spin.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from service.ingest.memory import keep_memory, limit_memory
from service.ingest.pipeline import ingest
from service.ingest.task import read_task
from service.process import Emit, Message, serve


def handle(task: Message, emit: Emit) -> Message:
    """One import, within its memory."""
    limit_memory(read_task(task).limits.memory_bytes)
    return ingest(task, emit)


if __name__ == "__main__":
    keep_memory()
    serve(handle)

"""What an import is asked to do."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from service.errors import Invalid

__all__ = ["MAX_STEP", "Limits", "Sampling", "Task", "read_task"]

MAX_STEP = (1 << 32) - 1

_Positive = Annotated[int, msgspec.Meta(gt=0)]


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what one file may ask of this process."""

    line_bytes: _Positive  # one record of an NDJSON file
    expanded_bytes: _Positive  # the file once decompressed
    expansion: _Positive  # decompressed ÷ compressed, beyond the first 64 MiB
    memory_bytes: _Positive | None = None  # data of the process (RLIMIT_DATA), set by `service.ingest.__main__`


class Sampling(msgspec.Struct, frozen=True):
    """What the run says of how its responses were sampled, as far as a log can show otherwise."""

    top_p: float = 1.0
    top_k: int = 0  # 0 or −1 = off
    logprobs_mode: str | None = None  # raw or processed

    @property
    def cut(self) -> list[str]:
        """What cuts the distribution off, in words; nothing where every token can be sampled."""
        top_p = [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return top_p + ([f"top-k {self.top_k}"] if self.top_k > 0 else [])


class Task(msgspec.Struct, frozen=True):
    """One file to import."""

    path: str
    out_dir: str  # exists and is empty; receives the pieces, and nothing if the import fails
    upload: str  # id that every row carries
    limits: Limits
    format: str = "auto"
    step: Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)] | None = None  # fills records that name none
    existing: dict[str, list[str]] = {}  # step → Parquet pieces that are already imported
    replace: bool = False  # the steps of this file replace the existing ones
    tokenizer: str | None = None  # directory of the run's tokenizer: for logs of text, and to compare text with ids
    sampling: Sampling = Sampling()


def read_task(message: dict[str, Any]) -> Task:
    """The message as a `Task`; `Invalid` if it is not one."""
    try:
        return msgspec.convert(message, Task)
    except msgspec.ValidationError as error:
        raise Invalid(f"Not an import task: {error}.") from error

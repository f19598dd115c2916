"""Opens what a trainer dumped with `torch.save` or as Parquet, as plain lists and numbers, and never runs a pickle.

`torch.load` is called with `weights_only=True` alone: tensors, and Python's and numpy's own values. Everything else in
a pickle is refused, by the names that it would import, which are read without running them.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from service.cli.exports import instructions, way_out
from service.errors import UnsupportedMedia

__all__ = ["classes_of", "plain", "read_parquet", "read_torch"]

_HEAD = 4 << 20  # bytes of a pickle that are looked at for names
_HARMLESS = ("torch", "collections", "builtins", "numpy", "_codecs")


def read_torch(path: Path) -> dict[str, Any]:
    """The dict that a `torch.save` file holds. Raises `UnsupportedMedia` for anything else, saying what to do."""
    try:
        import torch
    except ModuleNotFoundError:
        raise UnsupportedMedia(
            f"{path.name} was written with torch.save, and torch is not installed here: run dppo convert where the "
            "trainer runs, or pip install torch."
        ) from None
    if not zipfile.is_zipfile(path):
        raise _refusal(path, "it is no torch.save file")
    try:
        with _numpy_allowed(torch):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # noqa: BLE001 a broken or hostile pickle raises anything
        raise _refusal(path, f"torch refuses it ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise UnsupportedMedia(f"{path.name} holds a {type(content).__name__}, not a dump that is known here.")
    return content


def read_parquet(path: Path, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a Parquet file, of those columns that it has. Raises `UnsupportedMedia`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = file.read(
                [name for name in columns if name in file.schema_arrow.names]
            ).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UnsupportedMedia(f"{path.name} cannot be read as Parquet: {error}") from error
    return rows


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, tuples too; keys as text; what JSON does not have as its text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if _numbers(value) else [plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _numbers(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _refusal(path: Path, why: str) -> UnsupportedMedia:
    classes = [name for name in classes_of(path) if name.partition(".")[0] not in _HARMLESS]
    if not classes:
        return UnsupportedMedia(f"{path.name} is not opened: {why}, or it is broken.")
    named = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
    return UnsupportedMedia(
        f"{path.name} is not opened: it is a pickle that runs code of {named}.\n"
        f"{instructions(way_out(classes), path.name)}"
    )


def classes_of(path: Path) -> list[str]:
    """The names that a pickle, or the pickle in a `torch.save` file, would import; nothing of it is run.

    A pickle may hold a `torch.save` file (verl's DataProto does), and then looks like one: the names of both count.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    heads = [] if head.startswith(b"PK") else [head]
    with (
        contextlib.suppress(zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError),
        zipfile.ZipFile(path) as archive,
    ):
        inner = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if inner is not None:
            with archive.open(inner) as member:
                heads.append(member.read(_HEAD))
    found: dict[str, None] = {}
    for head in heads:
        with contextlib.suppress(ValueError, EOFError, IndexError, UnicodeError):  # no pickle, or not its whole
            for name in _imports(head):
                found[name] = None
    return list(found)


def _imports(head: bytes) -> Iterator[str]:
    """The names of all pickles in a row, as they come. Protocol 4 pushes module and name, perhaps from the memo."""
    stream = io.BytesIO(head)
    while stream.tell() < len(head):
        memo: dict[int, str] = {}
        texts: list[str] = [""]  # what was pushed, "" for anything but text
        for code, argument, _ in pickletools.genops(stream):
            if code.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            if code.name == "MEMOIZE":
                memo[len(memo)] = texts[-1]
            elif "PUT" in code.name and argument is not None:
                memo[int(argument)] = texts[-1]
            elif "GET" in code.name and argument is not None:
                texts.append(memo.get(int(argument), ""))
            else:
                texts.append(argument if isinstance(argument, str) and code.name not in ("GLOBAL", "INST") else "")


def _numpy_allowed(torch: Any) -> contextlib.AbstractContextManager[Any]:
    """numpy's own numbers and arrays of numbers beside tensors: a reward is often one."""
    allow = getattr(torch.serialization, "safe_globals", None)
    try:
        import numpy as np
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    if allow is None:
        return contextlib.nullcontext()
    core = np._core if hasattr(np, "_core") else np.core
    makers = (core.multiarray.scalar, core.multiarray._reconstruct)
    named = [(maker, f"numpy.{name}.multiarray.{maker.__name__}") for maker in makers for name in ("core", "_core")]
    context: contextlib.AbstractContextManager[Any] = allow(
        [*named, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}]
    )
    return context

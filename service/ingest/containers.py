"""What a file is, by its content, and its bytes once decompressed: never more than a block at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import zstandard

from service.errors import BadRecord, FieldError, UnsupportedMedia
from service.ingest.task import Limits

__all__ = ["Bomb", "Broken", "Container", "Inflow", "container_of", "refuse_text"]

Container = Literal["plain", "gzip", "zstd", "parquet"]

BLOCK = 1 << 20
_ZSTD_STEP = 1 << 10  # a KiB of zstd holds up to 32 MiB (each 4-byte RLE block 128 KiB): feed it slowly
_ZSTD_WINDOW = 1 << 27  # memory a frame may ask for; the default of `zstd -d`
_FREE_EXPANSION = 64 << 20  # the ratio is judged beyond this

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_PICKLE = "convert it on your side: the service never unpickles, because that would run code from the file"

# First bytes of files that people do upload -> what it is, what to do.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (torch.save and numpy write such files)", _PICKLE),
    *((bytes((0x80, protocol)), "a pickle (older torch.save writes such files)", _PICKLE) for protocol in range(2, 6)),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"ARROW1", "an Arrow file", "write it as Parquet"),
    (b"BZh", "compressed with bzip2", "compress it with gzip or zstd"),
    (b"\xfd7zXZ\x00", "compressed with xz", "compress it with gzip or zstd"),
    (b"\x89HDF\r\n", "an HDF5 file", "write it as Parquet or as one JSON object a line"),
    (b"\xff\xfe", "UTF-16 text", "write it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "write it as UTF-8"),
)


class Broken(Exception):
    """The compressed stream is damaged, cut off or followed by something else."""


class Bomb(Exception):
    """The file expands beyond what is allowed."""


def container_of(path: Path) -> Container:
    """What the file is by its first and last bytes. Raises `UnsupportedMedia` for what is never read."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(max(0, path.stat().st_size - 4))
        tail = file.read(4)
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or _is_skippable_frame(head):
        return "zstd"
    if head.startswith(_PARQUET):
        if tail != _PARQUET:
            raise BadRecord("The Parquet file is cut off: it does not end in PAR1. Upload it again.")
        return "parquet"
    _refuse_foreign(head)
    return "plain"


def refuse_text(head: bytes, container: Container) -> None:
    """Refuse what is no NDJSON by the first bytes of the text, after decompression."""
    if container != "plain":
        if head.startswith((_GZIP, _ZSTD)) or _is_skippable_frame(head):
            raise UnsupportedMedia("The file is compressed twice. Compress it once, with gzip or zstd.")
        if head.startswith(_PARQUET):
            raise UnsupportedMedia(f"The file is Parquet inside {container}. Upload the Parquet file itself.")
        _refuse_foreign(head)
    if head.lstrip().startswith(b"["):
        message = "the file is a JSON array; write one JSON object a line (NDJSON), without brackets or commas between"
        raise BadRecord(message[0].upper() + message[1:] + ".", [FieldError(message, line=1)])


def _refuse_foreign(head: bytes) -> None:
    for magic, what, way_out in _FOREIGN:
        if head.startswith(magic):
            raise UnsupportedMedia(f"The file is {what}: {way_out}.")


def _is_skippable_frame(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


class Inflow:
    """The text of a file in blocks of at most 1 MiB, watched for bombs.

    `consumed` counts bytes of the file, `expanded` bytes of text.
    """

    def __init__(self, path: Path, container: Container, limits: Limits) -> None:
        self.size = path.stat().st_size
        self.consumed = 0
        self.expanded = 0
        self._path = path
        self._container = container
        self._limits = limits

    def blocks(self) -> Iterator[bytes]:
        """Non-empty blocks. Raises `Broken` and `Bomb`."""
        with self._path.open("rb") as file:
            match self._container:
                case "gzip":
                    blocks = self._gunzip(file)
                case "zstd":
                    blocks = self._unzstd(file)
                case _:
                    blocks = iter(lambda: self._read(file, BLOCK), b"")
            for block in blocks:
                self.expanded += len(block)
                self._check_expansion()
                yield block

    def _check_expansion(self) -> None:
        if self.expanded > self._limits.expanded_bytes:
            raise Bomb(f"the file expands to more than {self._limits.expanded_bytes} bytes; split it")
        if self.expanded > max(_FREE_EXPANSION, self._limits.expansion * self.consumed):
            raise Bomb(f"the file expands more than {self._limits.expansion} times; upload it less compressed")

    def _read(self, file: BinaryIO, size: int) -> bytes:
        data = file.read(size)
        self.consumed += len(data)
        return data

    def _gunzip(self, file: BinaryIO) -> Iterator[bytes]:
        """Every member of a gzip file, each with its checksum."""
        inflate = zlib.decompressobj(wbits=31)
        pending = b""
        while True:
            data = pending or self._read(file, BLOCK)
            try:
                block = inflate.decompress(data, BLOCK)
            except zlib.error as error:
                raise Broken(f"the gzip stream is damaged ({error})") from error
            if block:
                yield block
            if inflate.eof:
                pending = inflate.unused_data
                if len(pending) < len(_GZIP):
                    pending += self._read(file, BLOCK)
                if not pending:
                    return
                if not pending.startswith(_GZIP):
                    raise Broken("something that is not gzip follows the gzip stream")
                inflate = zlib.decompressobj(wbits=31)
            elif data or block:
                pending = inflate.unconsumed_tail
            else:
                raise Broken("the gzip stream is cut off")

    def _unzstd(self, file: BinaryIO) -> Iterator[bytes]:
        """Every frame of a zstd file, skippable frames left out."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        frame = decompressor.decompressobj()
        pending = b""
        while True:
            data = pending or self._read(file, _ZSTD_STEP)
            if not data:
                raise Broken("the zstd stream is cut off")
            try:
                text = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise Broken(f"the zstd stream is damaged ({error})") from error
            for start in range(0, len(text), BLOCK):
                yield text[start : start + BLOCK]
            pending = b""
            if frame.eof:
                pending = frame.unused_data
                if len(pending) < len(_ZSTD):
                    pending += self._read(file, _ZSTD_STEP)
                if not pending:
                    return
                if not pending.startswith(_ZSTD) and not _is_skippable_frame(pending):
                    raise Broken("something that is not zstd follows the zstd stream")
                frame = decompressor.decompressobj()

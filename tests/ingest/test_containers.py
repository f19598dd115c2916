"""What a file is, by its content; damaged, cut-off and exploding streams."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from service.errors import BadRecord, LensError, TooLarge, UnsupportedMedia
from tests.ingest.files import Importing, ndjson, parquet, record

TEXT = ndjson([record(str(index), meta={"noise": sha256(b"%d" % index).hexdigest()}) for index in range(2000)])


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def lz(content: bytes) -> bytes:
    """zstd as a stream: frames that do not say how long they are."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(content) + compressor.flush()


BLANK_MIB = (b" " * 1023 + b"\n") * 1024
IO = Path("/proc/self/io")
SKIPPABLE = b"\x52\x2a\x4d\x18\x03\x00\x00\x00abc"
HALF = len(TEXT) // 2


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        gzip.compress(TEXT),
        zstd(TEXT),
        lz(TEXT),
        gzip.compress(TEXT[:HALF]) + gzip.compress(b"") + gzip.compress(TEXT[HALF:]),
        zstd(TEXT[:HALF]) + SKIPPABLE + lz(TEXT[HALF:]),
        SKIPPABLE + zstd(TEXT),
    ],
    ids=["plain", "gzip", "zstd", "zstd stream", "gzip members", "zstd frames", "skippable frame first"],
)
def test_containers(importing: Importing, content: bytes) -> None:
    assert importing(content)["rollouts"] == 2000


def test_name_does_not_matter(importing: Importing) -> None:
    path = importing.folder / "rollouts.parquet"
    path.write_bytes(gzip.compress(TEXT))
    assert importing(path)["rollouts"] == 2000


@pytest.mark.parametrize("compress", [gzip.compress, zstd, lz])
@pytest.mark.parametrize("cut", [1, 5, 9, 1000])
def test_cut_off(importing: Importing, compress, cut: int) -> None:  # type: ignore[no-untyped-def]
    error = importing.refused(compress(TEXT)[:-cut])
    assert isinstance(error, BadRecord)
    assert "is cut off, at line " in error.detail
    line = error.errors[0].line
    assert line is not None
    assert 1 <= line <= 2001
    if cut == 1 and compress is gzip.compress:
        assert line == 2001  # all of the text was there, the checksum was not


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "gzip"), (zstd, "zstd")])
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", b"\0" * 512, b"\x1f"])
def test_something_after_the_stream(importing: Importing, compress, name: str, garbage: bytes) -> None:  # type: ignore[no-untyped-def]
    error = importing.refused(compress(TEXT) + garbage)
    assert isinstance(error, BadRecord)
    assert f"something that is not {name} follows the {name} stream" in error.errors[0].message


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_damaged(importing: Importing, compress) -> None:  # type: ignore[no-untyped-def]
    content = bytearray(compress(TEXT))
    content[len(content) // 2] ^= 0xFF
    error = importing.refused(bytes(content))
    assert isinstance(error, BadRecord)
    assert "is damaged" in error.detail


def torch_file() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"rollout_id": 1}))
    return archive.getvalue()


@pytest.mark.parametrize("content", [torch_file(), *(pickle.dumps([record()], protocol) for protocol in (2, 3, 4, 5))])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_pickles_are_refused_with_a_way_out(importing: Importing, content: bytes, wrap) -> None:  # type: ignore[no-untyped-def]
    error = importing.refused(wrap(content))
    assert isinstance(error, UnsupportedMedia)
    assert "convert it on your side: the service never unpickles" in error.detail


@pytest.mark.parametrize(
    "content",
    [gzip.compress(gzip.compress(TEXT)), gzip.compress(zstd(TEXT)), zstd(gzip.compress(TEXT)), zstd(zstd(TEXT))],
)
def test_nested_compression(importing: Importing, content: bytes) -> None:
    error = importing.refused(content)
    assert isinstance(error, UnsupportedMedia)
    assert "compressed twice" in error.detail


def test_parquet_in_gzip(importing: Importing) -> None:
    path = parquet(importing.folder / "p", {"step": [1]})
    error = importing.refused(gzip.compress(path.read_bytes()))
    assert isinstance(error, UnsupportedMedia)
    assert "Upload the Parquet file itself" in error.detail


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bz2.compress(TEXT), "bzip2"),
        (lzma.compress(TEXT), "xz"),
        (b"ARROW1\0\0", "Parquet"),
        (b"PARE1234PARE", "encrypted"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ],
)
def test_other_files(importing: Importing, content: bytes, says: str) -> None:
    error = importing.refused(content)
    assert isinstance(error, UnsupportedMedia)
    assert says in error.detail


def test_too_much_text(importing: Importing) -> None:
    for content in (TEXT, gzip.compress(TEXT), zstd(TEXT)):
        assert importing(content, limits={"expanded_bytes": len(TEXT)})["rollouts"] == 2000
        error = importing.refused(content, limits={"expanded_bytes": len(TEXT) - 1})
        assert isinstance(error, TooLarge)
        assert f"more than {len(TEXT) - 1} bytes" in error.detail


@pytest.mark.parametrize("compress", [lambda text: gzip.compress(text, 3), zstd], ids=["gzip", "zstd"])
def test_bomb(importing: Importing, compress) -> None:  # type: ignore[no-untyped-def]
    """65 MiB of blank lines in a few kilobytes; 64 MiB of them are let through."""
    good = ndjson([record()])
    assert importing(compress(good + BLANK_MIB * 63), limits={"expansion": 100})["rollouts"] == 1
    error = importing.refused(compress(good + BLANK_MIB * 65), limits={"expansion": 100})
    assert isinstance(error, TooLarge)
    assert "expands more than 100 times" in error.detail


def bytes_read() -> int:
    """What this process has read from files so far."""
    (line,) = (line for line in IO.read_text().splitlines() if line.startswith("rchar:"))
    return int(line.split()[1])


@pytest.mark.skipif(not IO.exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("start", "says"),
    [
        (gzip.compress(BLANK_MIB) * 66, "expands more than 10 times"),  # 64 MiB are let through
        (zstd(BLANK_MIB) * 66, "expands more than 10 times"),
        (ndjson([record()]) + b'{"step":', "longer than 3145728 bytes"),
    ],
    ids=["gzip bomb", "zstd bomb", "endless line"],
)
def test_a_refusal_does_not_wait_for_the_rest(importing: Importing, start: bytes, says: str) -> None:
    """64 GiB follow what is refused, which nobody reads."""
    path = importing.folder / "in"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(64 << 30)  # takes no space
    task = {"expansion": 10, "line_bytes": 3 << 20}
    before = bytes_read()
    error = importing.refused(path, limits=task)
    assert isinstance(error, TooLarge)
    assert says in error.detail
    assert bytes_read() - before < 5 << 20


@pytest.mark.parametrize("short", [0, 1, 2, 3])
def test_stream_that_ends_where_a_block_ends(importing: Importing, short: int) -> None:
    """Files are read by the MiB (gzip) and the KiB (zstd): the next stream's magic number may be cut in two."""
    comment = b"c" * ((1 << 20) - short - len(gzip.compress(TEXT)) - 1)
    member = gzip.compress(TEXT)
    padded = member[:3] + b"\x10" + member[4:10] + comment + b"\0" + member[10:]
    assert len(padded) == (1 << 20) - short
    assert importing(padded + gzip.compress(b"\n"))["rollouts"] == 2000
    skipped = 1024 - short - 8
    frame = b"\x50\x2a\x4d\x18" + skipped.to_bytes(4, "little") + b"s" * skipped
    assert importing(frame + zstd(TEXT))["rollouts"] == 2000


def test_gzip_deflates_of_any_level_and_header(importing: Importing) -> None:
    """A member with a file name and comment in its header, stored without compression."""
    raw = zlib.compressobj(0, zlib.DEFLATED, -15)
    body = raw.compress(TEXT) + raw.flush()
    head = b"\x1f\x8b\x08\x18" + b"\0" * 4 + b"\0\xff" + b"name\0" + b"comment\0"
    tail = zlib.crc32(TEXT).to_bytes(4, "little") + len(TEXT).to_bytes(4, "little")
    assert importing(head + body + tail)["rollouts"] == 2000
    assert isinstance(importing.refused(head + body + b"\0\0\0\0" + tail[4:]), LensError)  # a wrong checksum

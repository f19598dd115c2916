"""`dppo sql`: a result as text for people, as JSON, or as a file that other tools read."""

from __future__ import annotations

import shutil
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from service.cli.output import Output, fail, session
from web.text import visible

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_text", "sql_command", "write_table"]

SUFFIXES = (".csv", ".parquet", ".arrow")
SHOWN_ROWS = 200
CELL = 80  # characters of a text that are shown


def sql_command(output: Output, statement: str, to: Path | None, server: str) -> None:
    """`dppo sql`."""
    if to is not None and to.suffix not in SUFFIXES:
        fail(output, f"--output ends in {', '.join(SUFFIXES)}, {to.name} does not")
    with session(output, server) as client:
        result = _with_names(client.sql(statement))
    if to is not None:
        try:
            write_table(result, to)
        except (OSError, ValueError) as error:
            fail(output, str(error))
        written = {"file": str(to), "rows": result.num_rows, "bytes": to.stat().st_size}
        output.result(written, f"{to}: {result.num_rows:,} rows, {written['bytes']:,} bytes")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    output.result(result.to_pylist(), as_text(result.slice(0, SHOWN_ROWS), width))
    if result.num_rows > SHOWN_ROWS and not output.as_json:
        output.note(f"… {result.num_rows:,} rows; the first {SHOWN_ROWS} are shown (--json or --output gives all)")


def _with_names(table: pa.Table) -> pa.Table:
    """Columns of one name, which a join gives, as name, name_1, …"""
    names: list[str] = []
    for name in table.column_names:
        others = (f"{name}_{number}" for number in count(1))
        names.append(name if name not in names else next(other for other in others if other not in names))
    return table.rename_columns(names)


def as_text(table: pa.Table, width: int | None = None) -> str:
    """Aligned columns, whole whatever their width; of more than `width` characters: each row as lines of its own.

    Text is one line without control characters: a log may hold anything, and a terminal obeys.
    """
    import pyarrow as pa

    names, rows = table.column_names, [[_cell(value) for value in row.values()] for row in table.to_pylist()]
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    if width is not None and rows and sum(widths) + 2 * (len(widths) - 1) > width:
        label = max(map(cell_len, names))
        return "\n\n".join(
            "\n".join(f"{_pad(name, label)}  {cell}" for name, cell in zip(names, row, strict=True)) for row in rows
        )
    right = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in table.schema.types]
    return "\n".join(
        "  ".join(_pad(cell, size, on_left) for cell, size, on_left in zip(row, widths, right, strict=True)).rstrip()
        for row in [names, *rows]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    return visible(value, CELL) if isinstance(value, str) else str(value)


def _pad(cell: str, size: int, on_left: bool = False) -> str:
    space = " " * (size - cell_len(cell))
    return space + cell if on_left else cell + space


def write_table(table: pa.Table, file: Path) -> None:
    """Write `table` as the suffix of `file` says; the file appears complete or not at all.

    Raises OSError, and ValueError for another suffix and for a column that the format cannot hold.
    """
    import pyarrow as pa

    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.name}: the suffix says the format, one of {', '.join(SUFFIXES)}")
    partial = file.with_name(f"{file.name}.partial")
    try:
        _write(table, file.suffix, partial)
        partial.replace(file)
    except pa.ArrowNotImplementedError as error:  # an interval
        raise ValueError(f"{file.name} was not written: {error}; cast the column to VARCHAR") from error
    finally:
        partial.unlink(missing_ok=True)


def _write(table: pa.Table, suffix: str, file: Path) -> None:
    if suffix == ".csv":
        _write_csv(table, file)
    elif suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, file)
    else:
        import pyarrow as pa

        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def _write_csv(table: pa.Table, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv

    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise ValueError(f"CSV has no cell for column {field.name} ({field.type}); choose .parquet or .arrow")
    pyarrow.csv.write_csv(table, file)

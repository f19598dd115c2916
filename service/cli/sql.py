"""`dppo sql --output`: a result as a file that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SUFFIXES", "write_table"]

SUFFIXES = (".csv", ".parquet", ".arrow")


def write_table(table: pa.Table, file: Path) -> None:
    """Write `table` as the suffix of `file` says; the file appears complete or not at all.

    Raises ValueError for another suffix, and for a column that CSV cannot hold.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.name}: the suffix says the format, one of {', '.join(SUFFIXES)}")
    partial = file.with_name(f"{file.name}.partial")
    try:
        if file.suffix == ".csv":
            _write_csv(table, partial)
        elif file.suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(table, partial)
        else:
            import pyarrow as pa

            with pa.ipc.new_file(partial, table.schema) as writer:
                writer.write_table(table)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(table: pa.Table, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv

    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise ValueError(f"CSV has no cell for column {field.name} ({field.type}); choose .parquet or .arrow")
    pyarrow.csv.write_csv(table, file)

"""One analysis as one self-contained native DuckDB file: tables, comments and macros, no external file."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from service.layout import fsync_path
from service.store.catalog import script
from service.store.lens import attach_new, quoted

__all__ = ["export"]

TABLES = {
    "analyses": "FROM lens.analyses WHERE analysis = $analysis",
    "noise_floor": "FROM lens.noise_floor WHERE analysis = $analysis ORDER BY step",
    "method_agreement": "FROM lens.method_agreement WHERE analysis = $analysis ORDER BY method, other",
    "method_rates": "FROM lens.method_rates WHERE analysis = $analysis ORDER BY step, method, sign",
    "pipo": "FROM lens.pipo WHERE analysis = $analysis ORDER BY step",
    "bounds": "FROM lens.bounds WHERE analysis = $analysis ORDER BY step",
    "step_summary": "FROM lens.step_summary WHERE analysis = $analysis ORDER BY step, sign",
    "step_metrics": "FROM lens.step_metrics WHERE analysis = $analysis ORDER BY step",
    "run_steps": "FROM lens.run_steps WHERE run = (SELECT run FROM lens.analyses WHERE analysis = $analysis) "
    "ORDER BY step",
    "rollouts": "FROM lens.rollouts WHERE (run, step) IN (SELECT (a.run, s.step) FROM lens.analyses a "
    "JOIN lens.analysis_scorings s USING (analysis) WHERE analysis = $analysis)",
    "tokens": "FROM lens.tokens WHERE analysis = $analysis",
}


def export(lens: Path, analysis: str, out: Path) -> None:
    """Write `analysis` from a published `lens.duckdb` to the new file `out`; a partial file is never left there."""
    partial = out.with_name(out.name + ".partial")
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{quoted(lens)}' AS lens (READ_ONLY)")
        attach_new(connection, partial, "out")
        for table, source in TABLES.items():
            connection.execute(f"CREATE TABLE out.{table} AS {source}", {"analysis": analysis})
        connection.execute("USE out")
        for statement in _shared_statements():
            connection.execute(statement)
        connection.execute("CHECKPOINT out")
        connection.execute("USE memory")
        connection.execute("DETACH out")
    fsync_path(partial)
    partial.replace(out)


def _shared_statements() -> list[str]:
    """The public macros and the comments of the exported tables, from the contract's own scripts."""
    macros = re.findall(r"^CREATE MACRO keep_.*?;$", script("contract"), flags=re.MULTILINE | re.DOTALL)
    comments = re.findall(r"^COMMENT ON .*;$", script("comments"), flags=re.MULTILINE)
    kept = [
        line.replace("COMMENT ON VIEW", "COMMENT ON TABLE")
        for line in comments
        if re.match(rf"COMMENT ON (MACRO|(VIEW|TABLE|COLUMN) ({'|'.join(TABLES)})\b)", line)
    ]
    return macros + kept

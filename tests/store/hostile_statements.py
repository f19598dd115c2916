"""The statements that the gate's and the sandbox's tests share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HOSTILE = Path(__file__).parents[1] / "data" / "hostile.sql"


@dataclass(frozen=True)
class Hostile:
    sql: str
    reason: str
    refused: bool  # by the gate; else a limit or an error stops it

    def at(self, *, out: Path, data: Path) -> str:
        """The statement with its placeholders filled in."""
        paths = {"{out}": out, "{data}": data, "{lens}": data / "lens.duckdb"}
        sql = self.sql
        for name, path in paths.items():
            sql = sql.replace(name, str(path))
        return sql


def written() -> list[Hostile]:
    """Those of hostile.sql."""
    statements = []
    for block in re.split("^--! ", HOSTILE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        kind, _, reason = head.partition(": ")
        statements.append(Hostile(body.split("\n--# ")[0].strip("\n"), reason, kind == "refused"))
    return statements


def generated() -> list[Hostile]:
    """Those too long, too deep or too odd to be written down."""
    long_or_odd = {
        "": "nothing",
        " \t\r\n": "nothing but white space",
        "\0": "a NUL",
        "select 1\0; drop table runs": "a second statement behind a NUL",
        "select '\ud800'": "a lone surrogate",
        "\ufeff": "nothing but a byte-order mark",
        "select 1;\u00a0drop table runs": "a second statement behind a no-break space",
        "select 1\u2003;\u2003drop table runs": "a second statement behind em spaces",
        "from to\u212aens": "the Kelvin sign, which Unicode folds to k and DuckDB does not",
        "select '" + "x" * 10_000_000 + "'": "10 MB",
        "select '" + "x" * 99_992 + "'": "one byte too many",
        "select '" + "é" * 50_000 + "'": "too many bytes, not characters",
    }
    deep = {
        "select " + "(" * 10_000 + "1" + ")" * 10_000: "10,000 parentheses",
        "select " + "(" * 90_000: "90,000 parentheses that never close",
        "select " + "[" * 9_000 + "]" * 9_000: "9,000 lists",
        "select " + "{'a':" * 9_000 + "1" + "}" * 9_000: "9,000 structs",
        "select " + "not " * 20_000 + "true": "20,000 times NOT",
        "select " + "- " * 20_000 + "1": "20,000 signs",
        "select 1" + "+1" * 40_000: "40,000 sums",
        "select 1" + "::int" * 19_000: "19,000 casts",
        "select 1" + " collate nocase" * 6_000: "6,000 collations",
        "select " + "case when true then " * 3_900 + "1" + " end" * 3_900: "3,900 times CASE",
        "select " + "(select " * 9_000 + "1" + ")" * 9_000: "9,000 subqueries",
        "select * from " + "(select * from " * 6_000 + "runs" + ")" * 6_000: "6,000 subqueries in FROM",
        "from runs" + " join runs using (run)" * 4_000: "4,000 joins",
        "select [1]" + "[1]" * 30_000: "30,000 subscripts",
    }
    return [Hostile(sql, reason, refused=True) for sql, reason in (long_or_odd | deep).items()]

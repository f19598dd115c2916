"""`dppo lab report`: tables, figures, verdicts and a manifest from the stored runs. Nothing is trained here but the
token study's few iterations, once."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dppo_core.lab import tokens as token_study
from dppo_core.lab.methods import METHODS
from dppo_core.lab.settings import Run
from dppo_core.lab.statistics import Estimate
from service.lab.claims import CLAIMS, judge
from service.lab.drawings import draw
from service.lab.outcomes import OUTCOMES, PRIMARY, Comparison, Results
from service.lab.plan import CONTROLS, EXPERIMENTS, FEW_SEEDS, MAIN, STALENESS, arm
from service.lab.store import Store, code_hash

__all__ = ["label", "write_report"]

Rows = list[dict[str, Any]]
REFERENCES = ("dppo_binary_tv", "pg_is")
QUESTIONS = {
    "a": (("dppo_matched", "grpo"),),
    "b": (
        ("dppo_topk_tv", "dppo_binary_tv"),
        ("dppo_exact_tv", "dppo_binary_tv"),
        ("dppo_exact_tv", "dppo_topk_tv"),
        ("dppo_topk_kl", "dppo_binary_kl"),
    ),
}
PAIRS = (("dppo_binary_tv", "pg_is"), ("grpo", "pg_is"), ("dppo_binary_tv", "grpo"))


def label(name: str) -> str:
    """An arm in words."""
    run = Run.parse(f"{name}-s0")
    title = METHODS[run.method].title
    if run.settings.old_policy == "current":
        return title
    return f"{title} at μ" if "π_old" in title else f"{title}, π_old at μ"


def write_report(folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None) -> list[Path]:
    """Write DIR/REPORT.md, manifest.json, tables/ and figures/; returns their paths.

    Runs that are missing are counted in the report. Raises ValueError where a stored run has other settings than its
    name says, or where nothing is stored.
    """
    store = Store(folder)
    if not store.names():
        raise ValueError(f"no runs in {store.runs}; `dppo lab run` makes some")
    results = Results(store, [name for names in EXPERIMENTS.values() for name in names])
    tokens = _tokens(folder, on_progress)
    tables = tabulate(results, tokens["estimates"])
    written = [_csv(folder / "tables" / f"{name}.csv", rows) for name, rows in tables.items() if rows]
    written += draw(results, tables, folder / "figures")
    written.append(_json(folder / "manifest.json", manifest(store, results)))
    text = folder / "REPORT.md"
    text.write_text(words(results, tables, tokens), encoding="utf-8")
    return [text, *written]


def tabulate(results: Results, tokens: dict[str, Estimate]) -> dict[str, Rows]:
    """Every table as rows."""
    arms = [name for name in MAIN if name in results.by_arm]
    judged, verdicts = judge(results, tokens)
    return {
        "seeds": [
            {"arm": name, "seed": seed, **found}
            for name in results.by_arm
            for seed, found in sorted(results.by_arm[name].items())
        ],
        "arms": [
            {"arm": name, "title": label(name), "outcome": outcome, **asdict(mean)}
            for name in arms
            for outcome in OUTCOMES
            if (mean := results.mean(name, outcome))
        ],
        "below_warmup": [
            {"arm": name, "title": label(name), "below": hit[0], "n": hit[1], "low": hit[2], "high": hit[3]}
            for name in arms
            if (hit := results.below_warmup(name))
        ],
        "comparisons": [
            _row(each)
            for reference in REFERENCES
            for outcome in PRIMARY
            for each in results.family(arms, reference, outcome)
        ],
        "controls": _controls(results),
        "questions": [
            {"question": question, **_row(found)}
            for question, pairs in QUESTIONS.items()
            for one, other in pairs
            for outcome in (*PRIMARY, "dropped")
            if (found := results.difference(one, other, outcome))
        ],
        "staleness": [
            {"staleness": staleness, **_row(found, one, other)}
            for staleness in STALENESS
            for one, other in PAIRS
            for outcome in PRIMARY
            if (
                found := results.difference(
                    arm(one, staleness=staleness), arm(other, staleness=staleness), outcome, FEW_SEEDS
                )
            )
        ],
        "claims": [
            {
                "claim": each.claim,
                "statement": each.statement.text,
                "sign": each.statement.sign,
                **(asdict(each.estimate) if each.estimate else {}),
                "p_holm": each.p_holm,
                "verdict": each.verdict or "runs are missing",
                "claim_verdict": verdicts[each.claim] or "runs are missing",
            }
            for each in judged
        ],
        "tokens": token_study.as_rows(tokens),
    }


def _controls(results: Results) -> Rows:
    """The three methods against one another in each condition, with the main setting on the same seeds."""
    conditions = {"main setting": {}, **CONTROLS}
    return [
        {"condition": condition, **_row(found, one, other)}
        for condition, changed in conditions.items()
        for one, other in PAIRS
        for outcome in PRIMARY
        if (found := results.difference(arm(one, **changed), arm(other, **changed), outcome, FEW_SEEDS))
    ]


def _row(found: Comparison, one: str | None = None, other: str | None = None) -> dict[str, Any]:
    return {
        "arm": one or found.arm,
        "reference": other or found.reference,
        "outcome": found.outcome,
        **asdict(found.estimate),
        "p_holm": found.p_holm,
    }


def _tokens(folder: Path, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """The token study, from DIR/tokens.json where this code has made it."""
    file = folder / "tokens.json"
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["code"] == code_hash():
            known["estimates"] = {name: Estimate(**found) for name, found in known["estimates"].items()}
            return dict(known)
    estimates, prompts, tokens = token_study.study(folder / "warmups", on_progress)
    about = {"code": code_hash(), "prompts": prompts, "tokens": tokens}
    _json(file, {**about, "estimates": {name: asdict(found) for name, found in estimates.items()}})
    return {**about, "estimates": estimates}


def manifest(store: Store, results: Results) -> dict[str, Any]:
    """Which runs there are, of which seeds, code and versions, with the hash of every file."""
    runs = [
        {
            "run": name,
            "seed": stored["seed"],
            "warmup": stored["warmup"],
            "warmup_reward": stored["warmup_reward"],
            "code": stored["code"],
            "weights": stored["weights"],
            "seconds": stored["seconds"],
            "sha256": hashlib.sha256(store.path(Run.parse(name)).read_bytes()).hexdigest(),
        }
        for name, stored in results.stored.items()
    ]
    return {
        "runs": runs,
        "missing": results.missing,
        "code": sorted({stored["code"] for stored in results.stored.values()}),
        "versions": _distinct(stored["versions"] for stored in results.stored.values()),
        "seconds": round(sum(run["seconds"] for run in runs)),
    }


def _distinct(items: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return [json.loads(text) for text in sorted({json.dumps(item, sort_keys=True) for item in items})]


def words(results: Results, tables: dict[str, Rows], tokens: dict[str, Any]) -> str:
    """REPORT.md."""
    planned = len({name for names in EXPERIMENTS.values() for name in names})
    lines = [
        "# The lab's report",
        "",
        f"Written by `dppo lab report`. {planned - len(results.missing)} of {planned} declared runs are stored"
        + (f"; **{len(results.missing)} are missing**, counted below where they matter." if results.missing else "."),
        "Intervals are 95 %, over seeds (t, paired where two arms are compared) or over prompts (bootstrap).",
        "",
        "## Claims",
        "",
        "| claim | verdict | statement | estimate | p (Holm) | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['claim']}: {_cell(CLAIMS[row['claim']][0])} | {row['claim_verdict']} | {_cell(row['statement'])} | "
        f"{_interval(row)} | {_p(row.get('p_holm'))} | {row['verdict']} |"
        for row in tables["claims"]
    ]
    lines += ["", "## Arms", "", f"| arm | n | {' | '.join(PRIMARY)} | engine | stale | update | ends below warm-up |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    below = {row["arm"]: row for row in tables["below_warmup"]}
    for name in MAIN:
        of_arm = {row["outcome"]: row for row in tables["arms"] if row["arm"] == name}
        if of_arm:
            cells = [_interval(of_arm[outcome]) for outcome in (*PRIMARY, "engine", "stale", "update")]
            hit = below[name]
            lines.append(f"| {label(name)} | {hit['n']} | {' | '.join(cells)} | {hit['below']} of {hit['n']} |")
    for title, key, head in (
        ("Against DPPO binary TV and PG-IS", "comparisons", None),
        ("Controls", "controls", "condition"),
        ("Questions", "questions", "question"),
        ("Staleness", "staleness", "staleness"),
    ):
        first = f"| {head} " if head else ""
        p_of = "p" if head else "p (Holm)"
        lines += ["", f"## {title}", "", f"{first}| arm − reference | outcome | difference | {p_of} | n |"]
        lines.append("|---" * (6 if head else 5) + "|")
        for row in tables[key]:
            pair = f"{label(row['arm'])} − {label(row['reference'])}"
            p = row["p_holm"] if head is None else row["p"]
            first = f"| {row[head]} " if head else ""
            lines.append(f"{first}| {pair} | {row['outcome']} | {_interval(row)} | {_p(p)} | {row['n']} |")
    lines += [
        "",
        "## Tokens",
        "",
        f"{tokens['tokens']:,} tokens of {tokens['prompts']:,} prompts.",
        "",
        "| statistic | estimate |",
        "|---|---|",
        *(f"| {_cell(row['what'])} | {_interval(row)} |" for row in tables["tokens"]),
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """As a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _interval(row: dict[str, Any]) -> str:
    if row.get("value") is None:
        return "–"
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _p(p: float | None) -> str:
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def _csv(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    return path


def _json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path

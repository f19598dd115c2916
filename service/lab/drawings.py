"""The report's figures: Plotly JSON, and an SVG beside each where Chromium and Playwright are at hand."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dppo_core.lab.settings import Run
from service.lab.outcomes import Results
from service.lab.plan import MAIN
from web.figures.lab import curves, forest
from web.figures.theme import THEMES

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["draw"]

Rows = list[dict[str, Any]]
SMOOTH = 10  # steps a drawn point is the mean of
AXES = {"final": "final reward", "auc": "reward over the run", "drift": "mean |π − μ|"}
PARTS = {"drift": "mean |π − μ|", "engine": "engine", "stale": "staleness", "update": "update"}


def draw(results: Results, tables: dict[str, Rows], folder: Path) -> list[Path]:
    """Write every figure that there are rows for; returns the paths."""
    theme = THEMES["light"]
    titles = {row["arm"]: row["title"] for row in tables["arms"]}
    starts = [stored["warmup_reward"] for stored in results.stored.values()]
    start = sum(starts) / len(starts) if starts else None
    figures = {
        "reward": curves(_steps(results, "reward"), theme, titles, start=start),
        "drift": curves(_steps(results, "mean_abs_dp"), theme, titles),
        "comparisons": _forest(
            [row for row in tables["comparisons"] if row["reference"] == "dppo_binary_tv"],
            lambda row: titles.get(row["arm"], row["arm"]),
            lambda _: "arm − DPPO binary TV",
        ),
        "parts": _forest(
            [row for row in tables["arms"] if row["outcome"] in PARTS],
            lambda row: row["title"],
            lambda _: "mean over seeds",
            axes=PARTS,
            zero=False,
        ),
        "controls": _forest(tables["controls"], lambda row: row["condition"], _pair),
        "question_a": _forest([row for row in tables["questions"] if row["question"] == "a"], _pair, lambda _: "(a)"),
        "question_b": _forest([row for row in tables["questions"] if row["question"] == "b"], _pair, lambda _: "(b)"),
        "question_c": _forest(tables["staleness"], lambda row: f"staleness {row['staleness']}", _pair),
        "tokens": _bins(tables["tokens"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        path = folder / f"{name}.json"
        path.write_text(str(figure.to_json()) + "\n", encoding="utf-8")
        written.append(path)
    return written + svgs({folder / f"{name}.svg": figure for name, figure in figures.items()})


def _steps(results: Results, column: str) -> pa.Table:
    """arm, seed, step, value of the main arms, a mean of `SMOOTH` steps a row; seed null: the mean over seeds."""
    rows: Rows = []
    for name, stored in results.stored.items():
        run = Run.parse(name)
        if run.arm not in MAIN:
            continue
        values = stored["columns"][column]
        for start in range(0, len(values), SMOOTH):
            part = values[start : start + SMOOTH]
            rows.append({"arm": run.arm, "seed": run.seed, "step": start + len(part) // 2, "value": fmean(part)})
    of_all: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        of_all.setdefault((row["arm"], row["step"]), []).append(row["value"])
    rows += [{"arm": arm, "step": step, "value": fmean(values)} for (arm, step), values in of_all.items()]
    return pa.Table.from_pylist(rows, schema=_STEPS)


_STEPS = pa.schema([("arm", pa.string()), ("seed", pa.int64()), ("step", pa.int64()), ("value", pa.float64())])
_FOREST = pa.schema(
    [(name, pa.string()) for name in ("panel", "label", "group")]
    + [(name, pa.float64()) for name in ("value", "low", "high")]
)


def _pair(row: dict[str, Any]) -> str:
    short = {"dppo_binary_tv": "DPPO", "grpo": "GRPO", "pg_is": "PG-IS", "dppo_matched": "DPPO at GRPO's rate"}
    short |= {"dppo_topk_tv": "top-K TV", "dppo_exact_tv": "exact TV", "dppo_topk_kl": "top-K KL"}
    if row["arm"].startswith(("dppo_topk", "dppo_exact")):
        short |= {"dppo_binary_tv": "binary TV", "dppo_binary_kl": "binary KL"}
    return f"{short.get(row['arm'], row['arm'])} − {short.get(row['reference'], row['reference'])}"


def _forest(rows: Rows, label: Any, group: Any, axes: dict[str, str] = AXES, zero: bool = True) -> go.Figure:
    shown = [
        {"panel": row["outcome"], "label": label(row), "group": group(row)}
        | {name: row[name] for name in ("value", "low", "high")}
        for row in rows
        if row["outcome"] in axes
    ]
    return forest(pa.Table.from_pylist(shown, schema=_FOREST), THEMES["light"], axes, zero=zero)


def _bins(rows: Rows) -> go.Figure:
    """Token-level statistics by bins of μ."""
    panels = {
        "sd_log_rho": "sd of ln ρ, engine only",
        "engine": "mean |π − μ|, engine only",
        "ppo_rate": "share PPO drops",
        "dppo_rate": "share DPPO drops",
    }
    shown = []
    for row in rows:
        panel, _, place = row["statistic"].rpartition("_")
        if panel in panels and place.isdigit():
            edges = row["what"][row["what"].index("[") :].strip("[]").replace(",", " –")
            shown.append(
                {"panel": panel, "label": f"μ {edges}", "group": "tokens"}
                | {name: row[name] for name in ("value", "low", "high")}
            )
    return forest(pa.Table.from_pylist(shown, schema=_FOREST), THEMES["light"], panels, zero=False)


def svgs(figures: dict[Path, go.Figure]) -> list[Path]:
    """Pictures of the figures by Debian's Chromium; none where it or Playwright is missing."""
    chromium = shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return []
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(content=get_plotlyjs())
        for path, figure in figures.items():
            picture = page.evaluate(_PICTURE, figure.to_json())
            path.write_text(picture + "\n", encoding="utf-8")
        browser.close()
    return list(figures)


_PICTURE = """async text => {
  const figure = JSON.parse(text), {width = 880, height = 460} = figure.layout;
  const uri = await Plotly.toImage(figure, {format: 'svg', width, height});
  return decodeURIComponent(uri.slice(uri.indexOf(',') + 1));
}"""

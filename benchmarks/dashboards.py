"""Part `dashboards`: how long a real server takes for every page, table and figure of a made-up run of many tokens.

One step's views, and what follows a slider, are asked for the first time since the server started (the files are in the
page cache). What the whole run shows at the stored thresholds was worked out ahead, which has a line of its own.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import httpx

from benchmarks.logger import quantile
from benchmarks.made_up import ANALYSIS, RUN, make
from benchmarks.sizes import Dashboards, Sizes
from benchmarks.table import Line
from service.api.prefill import LEAST_TOKENS
from tests.live import Server

__all__ = ["LATER", "SLIDERS", "VIEWS", "run"]

PAGES = ("", "/tokens", "/approximation", "/mismatch", "/methods", "/theory")
FIGURES = (
    "ratio_plane",
    "divergence_plane",
    "bins",
    "most_clipped",
    "clipped_probability",
    "binary_against_exact",
    "topk_against_exact",
    "approximation_ratios",
    "kappa_positive",
    "kappa_negative",
    "topk_mass",
    "mismatch_log_by_probability",
    "mismatch_dp_by_probability",
    "mismatch_log_by_step",
    "mismatch_dp_by_step",
    "truncation",
)
OF = f"/analyses/{ANALYSIS}"
VIEWS = {
    **{f"page {name or 'disagreement'}": OF + name for name in PAGES},
    **{f"figure {name}": f"/api/v1{OF}/figures/{name}" for name in FIGURES},
}
"""Every page and figure of an analysis that takes a step, or none for the whole run."""
OVERVIEW = {
    "page run overview": f"/runs/{RUN}",
    **{
        f"figure timeline_{name}": f"/api/v1/runs/{RUN}/figures/timeline_{name}"
        for name in ("drift", "extremes", "bad_updates")
    },
}
"""Those of the whole run alone."""
LATER = {"intervals (bootstrap)": f"{OF}/parts/intervals"}
"""What may arrive after the counts, with the page saying that it is on its way."""
SLIDERS = {
    "counts": f"{OF}/live",
    "bins": f"{OF}/parts/bins",
    "responses": f"{OF}/parts/responses",
    "ratio plane": f"/api/v1{OF}/figures/ratio_plane",
    "divergence plane": f"/api/v1{OF}/figures/divergence_plane",
    "figure of bins": f"/api/v1{OF}/figures/bins",
    "tokens": f"{OF}/tokens/live",
    "approximation": f"{OF}/approximation/live",
}
"""What follows a slider of the whole run."""
MOVES = (
    {"eps_low": 0.17, "eps_high": 0.31},
    {"delta_low": 0.11, "delta_high": 0.21},
    {"eps_high": 0.23, "delta_low": 0.07},
)
STEP, WHOLE, SLIDER, INTERACTIVE = 300, 300, 1000, 2000
AT_LARGE = 2000
PAYLOAD = 300_000
Timed = dict[str, list[float]]


def run(sizes: Sizes, progress: Callable[[str], None]) -> list[Line]:
    """Lines of the part, for each size of run."""
    return [line for size in sizes.dashboards for line in _of(size, progress)]


def _of(size: Dashboards, progress: Callable[[str], None]) -> list[Line]:
    large = size.distinct < size.steps
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make(data, size.steps, size.tokens, size.distinct, progress)
        with Server(data) as server, httpx.Client(base_url=server.url, timeout=600) as client:
            ahead = _prefilled(client, progress) if size.steps * size.tokens >= LEAST_TOKENS else None
            found = _Requests(client, progress)
            chosen = range(size.steps // 5, size.steps, max(1, size.steps // 5))
            found("warm-up", VIEWS, [{"step": 0}])
            steps = found("one step", VIEWS, [{"step": step} for step in chosen])
            whole = VIEWS | OVERVIEW
            moves = MOVES[: 1 if large else None]
            whole_run = found("whole run", whole, [{}, {}, {}])
            sliders = found("slider", SLIDERS, moves)
            later = found("intervals", LATER, ({}, *moves))
            shown = _shown(server.url, size, progress)
    of = f"{size.steps * size.tokens / 1e6:,.3g} M tokens"
    lines = [
        _p95(f"{of}: one step's views", steps, AT_LARGE if large else STEP),
        _p95(f"{of}: whole run, stored thresholds", whole_run, None if large else WHOLE),
        _p95(f"{of}: whole run after a slider moved", sliders, None if large else SLIDER),
        _p95(f"{of}: whole run, bootstrap intervals", later, None),
        Line("dashboards", f"{of}: disagreement page with both planes drawn", 1e3 * shown, "ms", INTERACTIVE),
        Line("dashboards", f"{of}: largest figure", max(found.bytes.values()) / 1e3, "kB", PAYLOAD / 1e3),
    ]
    if ahead is not None:
        lines.append(Line("dashboards", f"{of}: all pages opened ahead, once after an analysis", 1e3 * ahead, "ms"))
    for group in (steps, whole_run, sliders):
        lines += [
            Line("dashboards", f"{of}: {name}, median", 1e3 * statistics.median(seconds), "ms")
            for name, seconds in sorted(group.items(), key=lambda entry: -statistics.median(entry[1]))[:5]
        ]
    return lines


def _prefilled(client: httpx.Client, progress: Callable[[str], None]) -> float:
    """Seconds from the first page that is opened ahead to the last."""
    progress("waiting for the pages that are opened ahead")
    began = None
    deadline = time.perf_counter() + 900
    while time.perf_counter() < deadline:
        waiting = int(client.get("/metrics").text.split("\ndppo_pages_to_prefill ")[1].split()[0])
        if waiting and began is None:
            began = time.perf_counter()
        if not waiting and began is not None:
            return time.perf_counter() - began
        time.sleep(0.05)
    raise RuntimeError("the pages were not opened ahead in 15 minutes")


def _p95(what: str, timed: Timed, target: float | None) -> Line:
    seconds = [one for each in timed.values() for one in each]
    return Line("dashboards", f"{what}, 95 % of {len(seconds)}", 1e3 * quantile(seconds, 0.95), "ms", target)


def _shown(url: str, size: Dashboards, progress: Callable[[str], None]) -> float:
    """Seconds from a click on a link to the page of a step until its planes are drawn, the median of five steps."""
    from playwright.sync_api import sync_playwright

    from tests.web.chromium import EXECUTABLE, drawn

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{url}/")
        for step in range(1, 6):
            progress(f"a browser opens step {step}")
            started = time.perf_counter()
            page.goto(f"{url}{OF}?step={step % size.steps}")
            drawn(page)
            seconds.append(time.perf_counter() - started)
        browser.close()
    return statistics.median(seconds)


class _Requests:
    """Asks for addresses one after the other and keeps how long each took, and how much each figure weighs."""

    def __init__(self, client: httpx.Client, progress: Callable[[str], None]) -> None:
        self._client, self._progress = client, progress
        self.bytes: dict[str, int] = {}

    def __call__(self, group: str, views: Mapping[str, str], queries: Iterable[Mapping[str, float]]) -> Timed:
        timed: Timed = defaultdict(list)
        for query in queries:
            for name, path in views.items():
                self._progress(f"{group}: {name} {dict(query)}")
                started = time.perf_counter()
                response = self._client.get(path, params=dict(query))
                timed[f"{group}, {name}"].append(time.perf_counter() - started)
                response.raise_for_status()
                if "/figures/" in path:
                    self.bytes[name] = max(self.bytes.get(name, 0), len(response.content))
        return dict(timed)

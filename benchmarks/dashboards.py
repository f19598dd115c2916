"""Part `dashboards`: how long a real server takes for every page, table and figure of a made-up run of many tokens.

One step's views, and what follows a slider, are asked for the first time since the server started (the files are in the
page cache). What the whole run shows at the stored thresholds was worked out ahead, but for Compare, and is kept.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlencode

import httpx

from benchmarks.logger import quantile
from benchmarks.made_up import ANALYSIS, RUN, make
from benchmarks.sizes import Dashboards, Sizes
from benchmarks.table import Line
from service.api.pages.frame import TABS
from service.api.prefill import LEAST_TOKENS
from service.api.views import FIGURES
from tests.live import Server

__all__ = ["run", "views"]

OF, API = f"/analyses/{ANALYSIS}", f"/api/v1/analyses/{ANALYSIS}"
Views = dict[str, str]


def _address(path: str, **query: str | int | None) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def views(step: int | None) -> Views:
    """Every page and every figure of an analysis, of one step or of the whole run; Compare: the step beside another."""
    b, sample = (None if step is None else step + 1), "g0000/0"
    found = {f"page {tab or 'disagreement'}": _address(f"{OF}/{tab}".rstrip("/"), step=step) for tab in TABS}
    found["page compare"] = _address("/compare", a=ANALYSIS, a_step=step, b=ANALYSIS, b_step=b)
    for name in FIGURES:
        path = f"{API}/figures/{name}"
        if name.startswith("compare_"):
            found[f"figure {name}"] = _address(path, step=step, b=ANALYSIS, b_step=b)
        elif name.startswith("timeline_") or name == "strip":
            continue
        else:
            found[f"figure {name}"] = _address(path, step=step)
    if step is not None:
        found["page of a response"] = _address(f"{OF}/rollout", step=step, sample_id=sample)
        found["figure strip"] = _address(f"{API}/figures/strip", step=step, sample_id=sample)
    else:
        found["page run"] = _address(f"/runs/{RUN}", analysis=ANALYSIS)
        timelines = [name for name in FIGURES if name.startswith("timeline_")]
        run = f"/api/v1/runs/{RUN}/figures"
        found |= {f"figure {name}": _address(f"{run}/{name}", analysis=ANALYSIS) for name in timelines}
    return found


SLIDERS = {
    "counts": f"{OF}/live",
    "bins": f"{OF}/parts/bins",
    "responses": f"{OF}/parts/responses",
    "ratio plane": f"{API}/figures/ratio_plane",
    "divergence plane": f"{API}/figures/divergence_plane",
    "figure of bins": f"{API}/figures/bins",
    "approximation": f"{OF}/approximation/live",
    "mismatch": f"{OF}/mismatch/live",
    "compare": f"/compare?a={ANALYSIS}&b={ANALYSIS}",
}
"""What follows a slider of the whole run."""
LATER = {"intervals": f"{OF}/parts/intervals", "tokens": f"{OF}/tokens/live"}
"""What may arrive after that: the bootstrap and the search over tokens."""
MOVES = (
    {"eps_low": 0.17, "eps_high": 0.31},
    {"delta_low": 0.11, "delta_high": 0.21},
    {"eps_high": 0.23, "delta_low": 0.07},
)
"""Thresholds that lie beyond what quiet tokens stay within."""
AMONG = ({"eps_high": 0.05}, {"divergence": "topk_tv", "delta_high": 0.12})
"""A threshold among the quiet tokens, and a divergence that is not summed up: every token is read."""
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
            found("warm-up", [views(0)])
            steps = found("one step", [views(step) for step in chosen])
            moves = MOVES[: 1 if large else None]
            first, whole_run = found("whole run, first", [views(None)]), found("whole run", [views(None)] * 3)
            sliders = found("slider", [_moved(SLIDERS, move) for move in moves])
            among = found("slider among quiet tokens", [_moved(SLIDERS, move) for move in AMONG])
            later = found("later", [_moved(LATER, move) for move in (*moves, *AMONG)])
            shown = _shown(server.url, size, progress)
    of = f"{size.steps * size.tokens / 1e6:,.3g} M tokens"
    lines = [
        _p95(f"{of}: one step's views", steps, AT_LARGE if large else STEP),
        _p95(f"{of}: whole run, stored thresholds, first time", first, None),
        _p95(f"{of}: whole run, stored thresholds, again", whole_run, None if large else WHOLE),
        _p95(f"{of}: whole run after a slider moved", sliders, None if large else SLIDER),
        _p95(f"{of}: whole run after a slider moved, every token read", among, None if large else SLIDER),
        _p95(f"{of}: whole run after that, intervals and tokens", later, None),
        Line("dashboards", f"{of}: disagreement page with both planes drawn", 1e3 * shown, "ms", INTERACTIVE),
        Line("dashboards", f"{of}: largest figure", max(found.bytes.values()) / 1e3, "kB", PAYLOAD / 1e3),
    ]
    if ahead is not None:
        lines.append(Line("dashboards", f"{of}: all pages opened ahead, once after an analysis", 1e3 * ahead, "ms"))
    for group in (steps, first, whole_run, sliders, among, later):
        lines += [
            Line("dashboards", f"{of}: {name}, median", 1e3 * statistics.median(seconds), "ms")
            for name, seconds in sorted(group.items(), key=lambda entry: -statistics.median(entry[1]))[:3]
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


def _moved(asked: Views, move: Mapping[str, str | float]) -> Views:
    """The same addresses after a slider moved. Compare moves its side a."""
    return {
        name: f"{path}{'&' if '?' in path else '?'}"
        + urlencode({f"a_{key}" if name == "compare" else key: value for key, value in move.items()})
        for name, path in asked.items()
    }


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

    def __call__(self, group: str, rounds: Iterable[Views]) -> Timed:
        timed: Timed = defaultdict(list)
        for asked in rounds:
            for name, address in asked.items():
                self._progress(f"{group}: {address}")
                started = time.perf_counter()
                response = self._client.get(address)
                timed[f"{group}, {name}"].append(time.perf_counter() - started)
                response.raise_for_status()
                if "/figures/" in address:
                    self.bytes[name] = max(self.bytes.get(name, 0), len(response.content))
        return dict(timed)

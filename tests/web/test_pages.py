"""Pages over HTTP, without a browser: their numbers, their links, their states, and what they do with markup."""

from __future__ import annotations

import gzip
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest

from tests.live import Server
from tests.web import hand
from tests.web.conftest import Site


class Parsed(HTMLParser):
    """What a page holds: links, texts by `data-text`, scripts, handlers, ids and labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, dict[str, str | None]]] = []
        self.slots: dict[str, str] = {}
        self.inline: list[str] = []
        self.tags: list[str] = []
        self._open: list[str | None] = []
        self._template = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._template += tag == "template"
        self.inline += [name for name in given if name.startswith("on")]
        if tag == "script" and "src" not in given:
            self.inline.append("script")
        if tag == "a" and given.get("href") and not self._template:
            self.links.append((str(given["href"]), given))
        if tag not in ("br", "link", "meta", "input"):
            self._open.append(given.get("data-text"))

    def handle_endtag(self, tag: str) -> None:
        self._template -= tag == "template"
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] and not self._template:
            self.slots.setdefault(str(self._open[-1]), data)


def rollout_path(site: Site, sample: str = hand.HOSTILE_ID, step: int = 1, more: str = "") -> str:
    return f"/analyses/{site.analysis}/rollout?step={step}&sample_id={quote(sample, safe='')}{more}"


def paths(site: Site) -> list[str]:
    compared = f"/compare?a={site.analysis}&b={site.analysis}&b_step=1"
    return ["/", f"/runs/{hand.RUN}", f"/analyses/{site.analysis}", rollout_path(site), compared]


def test_the_empty_service_teaches_its_first_commands(site: Site) -> None:
    for command in ("dppo demo", "dppo upload RUN", "dppo checkpoint RUN", "dppo analyze RUN"):
        assert command in site.empty_home


def test_the_four_cells_are_those_worked_out_by_hand(site: Site) -> None:
    slots = Parsed(site.get(f"/analyses/{site.analysis}?step=0").text).slots
    counts = {
        key: slots[f"{sign}.{key}.n"]
        for sign in ("positive",)
        for key in ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop", "all")
    }
    assert counts == {"both_keep": "5", "ppo_only_drops": "3", "dppo_only_drops": "2", "both_drop": "1", "all": "11"}
    assert [slots[f"negative.{key}.n"] for key in ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop")] == [
        "6",
        "4",
        "1",
        "3",
    ]
    assert (slots["zero.n"], slots["unknown.n"]) == ("3", "1")
    assert slots["positive.ppo_only_drops.share"] == "27.3 %"  # 3 / 11
    assert slots["positive.ppo_only_drops.mass"] == "0.0240"  # 3 × .008
    assert slots["positive.ppo_only_drops.weight"] == "5.40"  # 3 × 1.8 × |A|
    assert slots["positive.ppo_only_drops.norm"] == "–"  # no model, so no Σπ²
    assert [slots[f"head.{name}"] for name in ("n", "first", "second", "disputed")] == ["25", "11", "7", "10"]
    assert slots["head.verb"] == "dropped"


def test_the_query_string_is_the_whole_view(site: Site) -> None:
    # 1 + ε_high = 2 lies above 1.8 and below 2.5; δ_low = .2 lies above .16 and below .3
    slots = Parsed(site.get(f"/analyses/{site.analysis}?step=0&eps_high=1&delta_low=0.2").text).slots
    assert [slots[f"positive.{key}.n"] for key in ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop")] == [
        "8",
        "0",
        "2",
        "1",
    ]
    assert [slots[f"negative.{key}.n"] for key in ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop")] == [
        "7",
        "4",
        "0",
        "3",
    ]
    links = [href for href, _ in Parsed(site.get(f"/analyses/{site.analysis}?eps_high=1").text).links]
    followed = [dict(parse_qsl(urlsplit(href).query)) for href in links if "/rollout?" in href]
    assert followed
    assert all(query["eps_high"] == "1.0" for query in followed)


def test_the_live_model_says_what_the_page_says(site: Site) -> None:
    query = "?step=0&eps_high=0.5"
    slots = Parsed(site.get(f"/analyses/{site.analysis}{query}").text).slots
    model = site.get(f"/analyses/{site.analysis}/live{query}").json()
    shared = {key: text for key, text in slots.items() if "." in key}
    assert len(shared) > 70
    assert {key: model[key] for key in shared} == shared


def test_a_divergence_that_is_not_known_is_unknown_and_says_why(site: Site) -> None:
    text = site.get(f"/analyses/{site.analysis}?step=0&divergence=exact_tv").text
    slots = Parsed(text).slots
    assert slots["unknown.n"] == "29"  # all counted tokens: 12 + 14 + 3
    assert slots["positive.both_keep.n"] == "0"
    assert "both full distributions" in text
    assert "no checkpoint was scored" in text


@pytest.mark.parametrize("query", ["eps_low=2", "eps_high=nan", "divergence=tv", "step=-1", "anything=1", "sign=7"])
def test_a_view_that_cannot_be_is_a_page_that_says_so(site: Site, query: str) -> None:
    answer = site.get(f"/analyses/{site.analysis}?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")
    assert query.partition("=")[0] in answer.text
    assert site.server.api.get(f"/analyses/{site.analysis}/tables/cells?{query}").status_code == 422


def test_missing_pages_are_pages(site: Site) -> None:
    for path in ("/nothing", "/runs/none", "/analyses/a0", rollout_path(site, "none"), f"/runs/{hand.RUN}?analysis=a0"):
        answer = site.get(path)
        assert answer.status_code == 404
        assert "Not found" in answer.text or "Not Found" in answer.text
    assert site.get(f"/analyses/{site.analysis}/rollout?sample_id=positive").status_code == 422


def test_markup_from_a_log_is_text_everywhere(site: Site) -> None:
    for path in paths(site):
        answer = site.get(path)
        assert answer.status_code == 200
        page = Parsed(answer.text)
        assert page.inline == []
        assert "img" not in page.tags
        assert hand.HOSTILE not in answer.text
    assert "&lt;script&gt;window.owned=1&lt;/script&gt;" in site.get(f"/runs/{hand.RUN}").text
    text = site.get(rollout_path(site)).text
    assert "‹202E›" in text
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "\x07" not in text


def test_pages_send_a_strict_policy_and_load_only_from_here(site: Site) -> None:
    for path in paths(site):
        answer = site.get(path)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", answer.text)


def test_every_link_is_a_page_a_download_or_below_the_api(site: Site) -> None:
    seen: set[tuple[str, frozenset[str]]] = set()  # a page is opened once with the same parameters
    taken: set[tuple[str, str]] = set()  # a download is tried under one view
    waiting = ["/"]
    while waiting and len(seen) < 60:
        path = waiting.pop()
        shape = (urlsplit(path).path, frozenset(dict(parse_qsl(urlsplit(path).query))))
        if shape in seen:
            continue
        seen.add(shape)
        answer = site.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith("text/html"), path
        for href, attributes in Parsed(answer.text).links:
            if href.startswith("#"):
                continue
            assert href.startswith("/"), href
            if href.startswith("/api/"):
                assert "download" in attributes, href
                parts = urlsplit(href)
                download = (parts.path, dict(parse_qsl(parts.query)).get("format", ""))
                if download not in taken:
                    taken.add(download)
                    assert httpx.get(site.url + href, timeout=30).status_code == 200, href
            else:
                waiting.append(href)
    assert any(path.endswith("/rollout") for path, _ in seen)


def test_a_response_is_shown_token_by_token(site: Site) -> None:
    text = site.get(rollout_path(site, "positive", 0, "&at=5")).text
    assert text.count('role="option"') == 14
    assert text.count('class="t ppo_only_drops"') == 3
    assert text.count('class="t masked"') == 2
    assert text.count('class="t unknown"') == 1
    slots = Parsed(text).slots
    assert (slots["position"], slots["ratio"], slots["divergence" if "divergence" in slots else "tv_binary"]) == (
        "5",
        "1.80",
        "0.00800",
    )
    assert slots["ppo"] == "dropped it: r = 1.80 > 1 + ε_high = 1.28"
    assert slots["dppo"] == "kept it: D = 0.00800 ≤ δ_high = 0.15"
    assert slots["entropy_old"] == "–"
    block = site.get(f"/analyses/{site.analysis}/rollout/tokens?step=0&sample_id=positive&first=10&limit=3").json()
    assert [token["verdict"] for token in block] == ["both dropped", "not known", "not counted"]
    assert block[2]["ratio"] == "–"


def test_responses_are_chained(site: Site) -> None:
    order = ["negative", "positive", "zero", hand.HOSTILE_ID]  # by step, group and sample
    path = rollout_path(site, order[0], 0)
    for wanted in order[1:]:
        (path,) = [href for href, given in Parsed(site.get(path).text).links if given.get("rel") == "next"]
        assert dict(parse_qsl(urlsplit(path).query))["sample_id"] == wanted


def test_a_run_in_each_state_says_what_comes_next(site: Site) -> None:
    api = site.server.api
    assert api.post("/runs", json={"run": "bare"}).status_code == 201
    assert "dppo upload bare" in site.get("/runs/bare").text
    site.server.upload("bare", hand.records()[:1])
    shown = re.sub(r"<section[^>]*hidden.*?</section>", "", site.get("/runs/bare").text, flags=re.DOTALL)
    assert "dppo checkpoint bare" in shown
    assert "dppo upload bare" not in shown
    assert "timeline_reward" in shown
    refused = site.get(f"/runs/{hand.RUN}").text
    assert "The file was refused; nothing of it was imported" in refused
    assert "line 1, step" in refused
    assert api.delete("/runs/bare").status_code == 204


def test_a_run_says_what_its_uploads_held(site: Site) -> None:
    """Warnings first, each under its own name, with where to look; the page and its live model alike."""
    (upload,) = site.get(f"/runs/{hand.RUN}/live").json()["uploads"]
    assert [one["message"][-16:] for one in upload["warnings"]] == ["First in line 1."]
    assert upload["warnings"][0]["message"].startswith("old_logprobs equal rollout_logprobs within 1e-07 on 48")
    notes = [one["message"] for one in upload["notes"]]
    assert [one for one in notes if one.startswith("Fields that the rollout record does not have were kept in meta: ")]
    shown = re.findall(
        r"<li><b>(\w+):</b> <span data-text=\"message\">([^<]+)</span>", site.get(f"/runs/{hand.RUN}").text
    )
    assert [label for label, _ in shown] == ["Warning"] * len(upload["warnings"]) + ["Note"] * len(notes)
    assert [unescape(text) for _, text in shown] == [one["message"] for one in upload["warnings"]] + notes


@pytest.mark.parametrize("name", ["ratio_plane", "divergence_plane", "timeline_drift", "timeline_reward"])
def test_figures_of_an_analysis(site: Site, name: str) -> None:
    answer = site.server.api.get(f"/analyses/{site.analysis}/figures/{name}?theme=dark&step=0")
    assert answer.status_code == 200
    assert answer.json()["layout"]["paper_bgcolor"] == "#161719"
    if name.endswith("plane"):
        marks = {trace["name"]: trace.get("customdata", []) for trace in answer.json()["data"]}
        assert [len(marks[kind]) for kind in ("only PPO", "only DPPO", "both")] == [7, 3, 4]


def test_figures_of_a_run_and_of_a_response(site: Site) -> None:
    api = site.server.api
    reward = api.get(f"/runs/{hand.RUN}/figures/timeline_reward").json()["data"][0]
    assert reward["y"] == pytest.approx([1 / 3, 0.5])
    strip = api.get(f"/analyses/{site.analysis}/figures/strip?step=1&sample_id={quote(hand.HOSTILE_ID, safe='')}")
    hover = [text for trace in strip.json()["data"] for text in trace.get("hovertext", [])]
    assert len(hover) == 2 * len(hand.PIECES)
    assert not [text for text in hover if "<script" in text or "<a" in text or "<img" in text]
    assert api.get(f"/analyses/{site.analysis}/figures/strip").status_code == 422
    assert api.get(f"/analyses/{site.analysis}/figures/none").status_code == 404
    assert api.get(f"/runs/{hand.RUN}/figures/ratio_plane").status_code == 404


def test_assets_are_served_from_here(site: Site) -> None:
    plotly = httpx.get(f"{site.url}/static/vendor/plotly.min.js", headers={"accept-encoding": "identity"})
    assert plotly.text.startswith("/**\n* plotly.js v")
    with httpx.stream("GET", f"{site.url}/static/vendor/plotly.min.js", headers={"accept-encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(packed.iter_raw())) == plotly.content
    again = httpx.get(f"{site.url}/static/vendor/plotly.min.js", headers={"if-none-match": plotly.headers["etag"]})
    assert again.status_code == 304
    for path, kind in (
        ("/favicon.ico", "image/svg+xml"),
        ("/static/themes.css", "text/css"),
        ("/static/js/bind.js", "text/javascript"),
    ):
        assert httpx.get(site.url + path).headers["content-type"].startswith(kind)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a server that wants a token."""
    server = Server(tmp_path_factory.mktemp("locked") / "data", env={"DPPO_TOKEN": "s3cret"})
    with server:
        yield server.url


def log_in(url: str, token: str, target: str) -> httpx.Response:
    return httpx.post(f"{url}/login", data={"token": token, "next": target}, headers={"accept": "text/html"})


def test_log_in_leads_back_to_the_page_that_was_asked_for(locked: str) -> None:
    asked = httpx.get(f"{locked}/runs/x?analysis=a1", headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fruns%2Fx%3Fanalysis%3Da1")
    form = httpx.get(locked + asked.headers["location"], headers={"accept": "text/html"})
    assert 'value="/runs/x?analysis=a1"' in form.text
    entered = log_in(locked, "s3cret", "/runs/x?analysis=a1")
    assert (entered.status_code, entered.headers["location"]) == (303, "/runs/x?analysis=a1")
    cookie = entered.headers["set-cookie"]
    assert "s3cret" not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    value = cookie.partition(";")[0]
    assert httpx.get(locked, headers={"cookie": value}).status_code == 200
    assert httpx.get(locked, headers={"cookie": value + "0"}).status_code == 303


def test_a_wrong_token_is_refused_and_nobody_is_sent_elsewhere(locked: str) -> None:
    wrong = log_in(locked, "guess", "/")
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    assert "That is not the token" in wrong.text
    for target in ("https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)", "/\t/evil.test", ""):
        assert log_in(locked, "s3cret", target).headers["location"] == "/"
    assert httpx.post(f"{locked}/login", content=b"token=" + b"x" * 20000).status_code == 413
    assert httpx.post(f"{locked}/login", content=b"&".join([b"a=1"] * 50)).status_code == 422


def test_without_a_token_there_is_nothing_to_log_in_to(site: Site) -> None:
    answer = site.get("/login?next=//evil.test")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")

"""Text from a log, made visible. Nothing here is trusted: a token may be markup, a control character, or both."""

from __future__ import annotations

import unicodedata

__all__ = ["label", "legible", "pieces", "visible"]

NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"}  # $…$ is TeX where a page has MathJax
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidi too), surrogates, private, unassigned


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN and character != "\u200d"


def pieces(text: str) -> list[tuple[str, str]]:
    """Runs of `text` as (kind, characters): text, space, newline, tab, or control (one character each)."""
    runs: list[tuple[str, str]] = []
    for character in text:
        kind = {" ": "space", "\n": "newline", "\t": "tab"}.get(character) or (
            "control" if _hidden(character) else "text"
        )
        if kind == "text" and runs and runs[-1][0] == "text":
            runs[-1] = ("text", runs[-1][1] + character)
        else:
            runs.append((kind, character))
    return runs


def visible(text: str | None, limit: int = 80) -> str:
    """`text` on one line: spaces as ␣ at its ends, newlines as ↵, control characters as code points."""
    if text is None:
        return ""
    shown = "".join(
        NAMED.get(character) or (f"‹{ord(character):04X}›" if _hidden(character) else character)
        for character in text[: limit + 1]
    )
    stripped = shown.strip(" ")
    lead, tail = len(shown) - len(shown.lstrip(" ")), len(shown) - len(shown.rstrip(" "))
    shown = "␣" * lead + stripped + "␣" * tail if stripped else "␣" * len(shown)
    return shown[:limit] + "…" if len(text) > limit else shown


def legible(text: str) -> str:
    """`text` with its lines, its control characters as code points: none may turn or hide what stands beside it."""
    if text.isprintable():
        return text
    return "".join(
        f"‹{ord(character):04X}›" if _hidden(character) and character not in "\n\t" else character for character in text
    )


def label(text: str | None, limit: int = 60) -> str:
    """`visible` for Plotly, which reads a subset of HTML (links too) in every text it draws."""
    return "".join(ENTITIES.get(character, character) for character in visible(text, limit))

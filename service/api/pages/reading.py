"""A response's tokens as its page prints them: by the stretch, for a response may have tens of thousands."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from service.errors import NotFound
from service.store.lens import Lens
from web import words
from web.numbers import count
from web.text import pieces, visible

__all__ = ["BLOCK", "WINDOW", "first_of_interest", "kinds_of", "legend", "spans", "window"]

Row = dict[str, Any]
BLOCK = 512  # tokens that are sent at once
WINDOW = 3 * BLOCK  # tokens of a page when it is opened
LETTERS = {  # of the query `kinds`
    "p": "ppo_only_drops",
    "d": "dppo_only_drops",
    "b": "both_drop",
    "k": "both_keep",
    "z": "no_gradient",
    "u": "unknown",
    "m": "masked",
}
ALWAYS = "pdb"  # kinds that the legend names even where there are none


def kinds_of(lens: Lens, at: Row) -> str:
    """What happens to each token of a response, one letter of `LETTERS` a token. Raises `NotFound`."""
    (row,) = lens.table("kinds", at).to_pylist()
    if not row["kinds"]:
        raise NotFound(f"analysis {at['analysis']} has no sample {at['sample_id']!r} in step {at['step']}, or not yet")
    return str(row["kinds"])


def first_of_interest(kinds: str) -> int:
    """The place of the first token in dispute, or the first of all."""
    found = re.search("[pd]", kinds)
    return found.start() if found else 0


def window(chosen: int, size: int) -> tuple[int, int]:
    """The stretch [first, last) that a page opens with: all of a short response, else the blocks around a token."""
    first = max(0, min((chosen // BLOCK - 1) * BLOCK, -(-size // BLOCK) * BLOCK - WINDOW))
    return first, min(size, first + WINDOW)


def spans(lens: Lens, at: Row, first: int, last: int, reach: float | None) -> list[Row]:
    """The tokens [first, last) with their decision and the depth of their colour."""
    rows = lens.table("stretch", {**at, "first": first, "last": last - 1, "reach": reach})
    columns = ("position", "token", "token_id", "cell", "level")
    return [_span(token, at["evaluated_at"]) for token in rows.select(columns).to_pylist()]


def _span(token: Row, evaluated_at: str) -> Row:
    shown = token["token"] if token["token"] is not None else f"⟨{token['token_id']}⟩"
    kind = token["cell"] or "masked"
    level = token["level"] or 0
    return {
        "position": token["position"],
        "kind": kind,
        "depth": f"{'rise' if level > 0 else 'fall'}{abs(level)}" if level else "",
        "pieces": pieces(shown),
        "name": "" if shown.strip() else visible(shown) or "empty",
        "label": "" if kind in ("both_keep", "no_gradient", "masked") else words.cell_name(kind, evaluated_at),
    }


def legend(kinds: str, evaluated_at: str) -> list[Row]:
    """A key for each kind of token that the response has."""
    counts = Counter(kinds)
    return [
        {
            "kind": kind,
            "letter": letter,
            "name": words.cell_name(kind, evaluated_at),
            "n": count(counts[letter]),
            "any": counts[letter] > 0,
        }
        for letter, kind in LETTERS.items()
        if counts[letter] or letter in ALWAYS
    ]

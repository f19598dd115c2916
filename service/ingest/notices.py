"""Warnings: what was odd in a file that was imported all the same. One warning a kind, with a count and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from service.ingest.values import clip

__all__ = ["Notices"]

_EXAMPLES = 3
_NAMES = 1000  # distinct unknown names that are counted
_ZERO_SHARE = 0.2  # of the known, counted log-probabilities of a file


@dataclass
class _Kind:
    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


class Notices:
    """Counts what is noticed while a file is read; `result` words it."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._unknown: Counter[str] = Counter()
        self._unnamed = 0
        self._zeros: Counter[str] = Counter()
        self._known: Counter[str] = Counter()

    def _note(self, code: str, name: str, lines: Iterable[int]) -> None:
        for line in lines:
            kind = self._kinds.setdefault((code, name), _Kind())
            kind.count += 1
            if len(kind.examples) < _EXAMPLES:
                kind.examples.append({"line": line, "field": name})

    def no_mask(self, lines: Iterable[int]) -> None:
        """Records without `response_mask`."""
        self._note("no_response_mask", "response_mask", lines)

    def left_out(self, reason: str, lines: Iterable[int]) -> None:
        """Responses that the adapter of the file's format did not take."""
        self._note("left_out", reason, lines)
        for example in self._kinds["left_out", reason].examples:
            example["field"] = None

    def unsorted_top(self, lines: Iterable[int]) -> None:
        """Records whose top lists are not best first somewhere."""
        self._note("unsorted_top_logprobs", "rollout_top_logprobs", lines)

    def approximate(self, lines: Iterable[int]) -> None:
        """Records marked approximate: by the import, which tokenised their text, or by whoever wrote them."""
        self._note("approximate", "logprobs_approximate", lines)

    def zeros(self, name: str, zeros: int, known: int, all_zero: Iterable[int]) -> None:
        """`zeros` of the `known` log-probabilities `name` are exactly 0; the lines whose every one is."""
        self._zeros[name] += zeros
        self._known[name] += known
        self._kinds.setdefault(("zero_logprobs", name), _Kind())
        self._note("zero_logprobs", name, all_zero)

    def unknown(self, line: int, names: Iterable[str]) -> None:
        """Fields of a record that the rollout record does not have."""
        for name in map(clip, names):
            if name not in self._unknown and len(self._unknown) >= _NAMES:
                self._unnamed += 1
                continue
            self._unknown[name] += 1
            kind = self._kinds.setdefault(("unknown_fields", ""), _Kind())
            if self._unknown[name] == 1 and len(kind.examples) < _EXAMPLES:
                kind.examples.append({"line": line, "field": name})

    def result(self) -> list[dict[str, Any]]:
        """The warnings, as plain data: code, message, count and a few examples (line, field)."""
        warnings = []
        for (code, name), kind in sorted(self._kinds.items()):
            word = {
                "approximate": self._word_approximate,
                "left_out": self._word_left_out,
                "no_response_mask": self._word_mask,
                "unsorted_top_logprobs": self._word_unsorted,
                "unknown_fields": self._word_unknown,
                "zero_logprobs": self._word_zeros,
            }[code]
            warning = word(name, kind)
            if warning:
                warnings.append({"code": code, **warning, "examples": kind.examples})
        return warnings

    def _word_mask(self, _name: str, kind: _Kind) -> dict[str, Any]:
        return {
            "message": f"{_records(kind.count)} no response_mask: every response token counts. If tool or observation "
            "tokens are among them, log the mask.",
            "count": kind.count,
        }

    def _word_left_out(self, reason: str, kind: _Kind) -> dict[str, Any]:
        responses = "1 response was" if kind.count == 1 else f"{kind.count} responses were"
        return {"message": f"{responses} left out: {reason}.", "count": kind.count}

    def _word_approximate(self, _name: str, kind: _Kind) -> dict[str, Any]:
        records = "1 record is" if kind.count == 1 else f"{kind.count} records are"
        return {
            "message": f"{records} approximate: token ids made from text, or log-probs of other tokens than these. "
            "What is computed from them is approximate too; log token ids to be exact.",
            "count": kind.count,
        }

    def _word_unsorted(self, _name: str, kind: _Kind) -> dict[str, Any]:
        return {
            "message": f"{_records(kind.count)} rollout_top_logprobs that are not best first; the order is kept as it "
            "is, and the first K entries are taken as the top K.",
            "count": kind.count,
        }

    def _word_unknown(self, _name: str, _kind: _Kind) -> dict[str, Any]:
        names = self._unknown.most_common(20)
        listed = ", ".join(f"{name!r} ({count})" for name, count in names)
        more = len(self._unknown) - len(names) + (self._unnamed > 0)
        return {
            "message": f"Fields that the rollout record does not have were kept in meta: {listed}"
            + (f", and {more} more." if more else "."),
            "count": self._unknown.total() + self._unnamed,
        }

    def _word_zeros(self, name: str, kind: _Kind) -> dict[str, Any] | None:
        zeros, known = self._zeros[name], self._known[name]
        if kind.count == 0 and zeros <= _ZERO_SHARE * known:
            return None
        return {
            "message": f"{zeros} of {known} {name} on counted tokens are exactly 0"
            + (f", in {kind.count} records all of them" if kind.count else "")
            + ": a missing log-prob stored as probability 1? Write null where it is not known.",
            "count": zeros,
        }


def _records(count: int) -> str:
    return "1 record has" if count == 1 else f"{count} records have"

"""The names of the rollout record, and the names that were probably meant to be one of them."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["KNOWN", "REQUIRED", "near_miss"]

REQUIRED = ("sample_id", "group_id", "prompt_token_ids", "response_token_ids")  # and `step`, unless given beside it

KNOWN = (
    "step",
    *REQUIRED,
    "response_mask",
    "rollout_logprobs",
    "rollout_top_token_ids",
    "rollout_top_logprobs",
    "old_logprobs",
    "new_logprobs",
    "reward",
    "advantage",
    "trainer_keep",
    "policy_version",
    "turn",
    "minibatch",
    "prompt_text",
    "response_text",
    "finish_reason",
    "logprobs_approximate",
    "meta",
)

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", _CAMEL.sub("_", name).lower()) if word]


def _singular(word: str) -> str:
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word.removesuffix("s")


def _forms(name: str) -> tuple[str, str]:
    """`name` without case, underscores and hyphens; and the same with every word in the singular."""
    words = _words(name)
    return "".join(words), "".join(_singular(word) for word in words)


def _one_edit_apart(a: str, b: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns `a` into `b` (or none does)."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    a, b = a[start:], b[start:]
    if len(a) != len(b):
        return a[1:] == b or a == b[1:]
    return a[1:] == b[1:] or (a[2:] == b[2:] and a[:2] == b[1::-1])


_KNOWN_FORMS = {name: _forms(name) for name in KNOWN}


@lru_cache(maxsize=4096)
def near_miss(name: str) -> str | None:
    """The known name that the unknown `name` differs from by a slip of the pen, if there is one.

    A slip is one edit (Damerau-Levenshtein distance 1), a plural for a singular or the other way round, or other
    case, underscores and hyphens, also together with one edit.
    """
    if len(name) > 40:
        return None
    plain, singular = _forms(name)
    for known, (known_plain, known_singular) in _KNOWN_FORMS.items():
        if _one_edit_apart(name, known) or _one_edit_apart(plain, known_plain) or singular == known_singular:
            return known
    return None

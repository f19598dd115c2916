"""What adapters share: the response within a sequence, one value of a file, and how to speak of it.

The standard library is enough for all of this; adapters also run beside a trainer.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "MAX_NAME",
    "MAX_STEP",
    "MAX_TOKEN",
    "NOTHING_COUNTS",
    "UNUSED",
    "Span",
    "clip",
    "entries",
    "flag",
    "kept",
    "kind",
    "mark",
    "more",
    "name",
    "number",
    "plain",
    "prompt_hash",
    "rest",
    "shift",
    "show",
    "text",
    "token_id",
    "turns",
    "within",
]

MAX_TOKEN = (1 << 31) - 1
MAX_STEP = (1 << 32) - 1
MAX_NAME = 150  # characters
_MAX_DEPTH = 60
_CLIP = 60  # characters of a value in a message
_T = TypeVar("_T")

NOTHING_COUNTS = "their mask marks no token of the response"  # why a row is left out

# Lists, objects and encoded arrays that formats have and no record keeps, each with the reason. Every other field that
# has no place of its own in the record goes to meta (`rest`), a trainer's new ones too.
_FOLLOWS = "follows from the two log-probs"
_OTHER = "another model's (a reference, a teacher), neither μ nor the trainer's π"
_CRITIC = "of a critic: what became of it is in the advantage"
_PROMPT = "of prompt tokens, which are not sampled"
_NUCLEUS = "ids without log-probs: not enough for a divergence over them"
_CUT = "of the sampled token among those that top-k and top-p left; a trainer's π is over all of them"
_CHOSEN = "of tokens that the request chose, not of the most likely ones"
_PLACE = "says where a token is, which its place in the list says"
_ROUTES = "which experts a token went through, or which tokens its attention took"
_IMAGE = "pixels"
UNUSED: Mapping[str, str] = {
    **dict.fromkeys(("mismatch_kl", "log_importance_ratio", "importance_ratio", "prob_delta"), _FOLLOWS),
    **dict.fromkeys(("train_rollout_abs_diff", "ppo_kl", "pg_loss", "finite"), _FOLLOWS),
    **dict.fromkeys(("ref_logprobs", "ref_log_probs", "reference_logprobs", "base_action_log_probs"), _OTHER),
    **dict.fromkeys(("teacher_log_probs", "distill_token_ids", "distill_logprobs", "opd_reverse_kl", "kl"), _OTHER),
    **dict.fromkeys(("values", "returns", "token_rewards"), _CRITIC),
    **dict.fromkeys(("prompt_mask", "prompt_logprobs", "input_token_logprobs", "input_top_logprobs"), _PROMPT),
    **dict.fromkeys(("rollout_top_p_token_ids", "rollout_top_p_token_offsets"), _NUCLEUS),
    **dict.fromkeys(("sampling_mask", "output_token_sampling_mask"), _NUCLEUS),
    **dict.fromkeys(("input_token_ids_logprobs", "output_token_ids_logprobs"), _CHOSEN),
    "output_token_sampling_logprobs": _CUT,
    **dict.fromkeys(("position_ids", "text_offset", "bytes"), _PLACE),
    **dict.fromkeys(("routed_experts", "rollout_routed_experts", "indexer_topk", "rollout_indexer_topk"), _ROUTES),
    "hidden_states": "what a layer made of a token",
    **dict.fromkeys(("images", "multimodal_inputs", "multimodal_train_inputs"), _IMAGE),
    "is_content": "which tokens are the message's own text, as against its template's",
    "loss_weights": "how much a token counts in a loss of the trainer's own",
}


@dataclass(frozen=True)
class Span:
    """The response in a list over the whole sequence: [start:stop], and which of its tokens count."""

    start: int
    stop: int
    mask: list[bool]


def kept(values: list[_T | None]) -> list[_T | None] | None:
    """The list, or None if nothing in it is known."""
    return values if any(value is not None for value in values) else None


def within(values: Sequence[_T | None] | None, span: Span) -> list[_T | None] | None:
    """A list over the whole sequence, cut to the response; null where the mask is 0."""
    if values is None:
        return None
    cut = values[span.start : span.stop]
    return kept([value if counts else None for value, counts in zip(cut, span.mask, strict=True)])


def turns(mask: Sequence[Any]) -> list[int] | None:
    """[response tokens] the turn by the gaps in the mask, each of which leads up to the next; None without a gap.

    For formats whose mask is 0 on the tokens of others and on nothing else.
    """
    found, turn, counted = [], 0, False
    for counts in mask:
        turn += counted and not counts
        counted = bool(counts)
        found.append(turn)
    return found if turn else None


def prompt_hash(ids: Iterable[int]) -> str:
    """A name for a prompt, the same wherever its token ids are: for formats that do not say which prompt it was."""
    return "prompt-" + hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def token_id(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKEN:
        raise ValueError(f"{show(value)} is not a token id (an integer from 0 to {MAX_TOKEN})")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise ValueError(f"{show(value)} is not 0 or 1")
    return bool(value)


def mark(value: Any) -> bool | None:
    return None if value is None or (value == -1 and type(value) is not bool) else flag(value)


def number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{show(value)} is not a number")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if math.isinf(real):
        raise ValueError(f"{real} is not a finite number")
    return None if math.isnan(real) else real


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair, which is no character") from None
    return value


def name(value: Any) -> str:
    """A name for a sample or a group: a string, or an integer as its digits. Shorter than an id, to be part of one."""
    if type(value) is int and abs(value) < 10**MAX_NAME:
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected a string or an integer, found {kind(value)}")
    if not 0 < len(value) <= MAX_NAME or any(unicodedata.category(letter) == "Cc" for letter in value):
        raise ValueError(f"is no name of 1 to {MAX_NAME} characters, no control characters among them")
    return text(value)


def plain(value: Any, depth: int = 0) -> Any:
    """A value for meta: null where a number is not finite, as Python writes it into JSON."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [plain(element, depth + 1) for element in value]
    if isinstance(value, dict):
        return {text(key): plain(element, depth + 1) for key, element in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rest(raw: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """What has no place of its own in the record, for meta: all but `taken`, `UNUSED`, and what is null or empty."""
    return {
        name: value
        for name, value in raw.items()
        if value is not None
        and name not in taken
        and not (isinstance(value, (list, dict)) and not value)
        and not (isinstance(value, (list, dict, str)) and name in UNUSED)
    }


def shift(found: int, expected: int) -> str:
    """What to say after the lengths of two lists that should be equal."""
    return {-1: " (one short: shifted?)", 1: " (one more: shifted?)"}.get(found - expected, "")


def show(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return kind(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value[:_CLIP] if isinstance(value, str) else value)


def kind(value: Any) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for types, name in ((str, "a string"), ((int, float), "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, types):
            return name
    return "something that JSON does not have"


def clip(name: str) -> str:
    shown = name if len(name) <= 100 else name[:100] + "…"
    return shown.encode(errors="replace").decode()


def entries(length: int) -> str:
    return "1 entry" if length == 1 else f"{length} entries"


def more(count: int) -> str:
    return "" if count == 0 else f" (and {count} more element{'s' if count > 1 else ''} of the list)"

"""Arrow arrays (columns of a Parquet file) to columns: which types a field may have, and its numpy form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as t

from service.ingest.columns import Columns, Nested, Ragged, offsets_of
from service.ingest.flat import Bools, NotFlat

__all__ = ["columns_of", "expected", "is_null"]

Test = Callable[[Any], bool]


def is_null(kind: Any) -> bool:
    """Whether a column of this type can hold nothing but nulls."""
    return bool(t.is_null(_plain(kind)))


def _plain(kind: Any) -> Any:
    return kind.value_type if t.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    kind = _plain(kind)
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    return bool(t.is_integer(kind) or t.is_floating(kind))


def _is_flag(kind: Any) -> bool:
    return bool(t.is_boolean(kind)) or _is_number(kind)


def _is_list(kind: Any) -> bool:
    return bool(
        t.is_list(kind)
        or t.is_large_list(kind)
        or t.is_fixed_size_list(kind)
        or t.is_list_view(kind)
        or t.is_large_list_view(kind)
    )


def _list_of(test: Test) -> Test:
    return lambda kind: _is_list(kind) and (is_null(kind.value_type) or test(kind.value_type))


def _either(*tests: Test) -> Test:
    return lambda kind: any(test(kind) for test in tests)


_numbers = _list_of(_is_number)

_TYPES: dict[str, tuple[Test, str]] = {
    "step": (_is_number, "integers"),
    **dict.fromkeys(("sample_id", "group_id"), (_either(_is_text, t.is_integer), "strings or integers")),
    **dict.fromkeys(("prompt_token_ids", "response_token_ids", "turn"), (_numbers, "lists of integers")),
    "response_mask": (_list_of(_is_flag), "lists of 0/1 or booleans"),
    **dict.fromkeys(("rollout_logprobs", "old_logprobs", "new_logprobs"), (_numbers, "lists of numbers")),
    "rollout_top_token_ids": (_list_of(_numbers), "lists of lists of integers"),
    "rollout_top_logprobs": (_list_of(_numbers), "lists of lists of numbers"),
    **dict.fromkeys(("reward", "advantage"), (_either(_is_number, _numbers), "numbers or lists of numbers")),
    **dict.fromkeys(("policy_version", "minibatch"), (_either(_is_number, _numbers), "integers or lists of integers")),
    "trainer_keep": (_list_of(t.is_boolean), "lists of booleans"),
    **dict.fromkeys(("prompt_text", "response_text", "finish_reason"), (_is_text, "strings")),
    "logprobs_approximate": (t.is_boolean, "booleans"),
    "meta": (_either(_is_text, t.is_struct, t.is_map), "JSON strings, structs or maps"),
}


def expected(name: str, kind: Any) -> str | None:
    """What the column `name` should hold, if its type cannot; else None."""
    test, words = _TYPES[name]
    return None if test(kind) or is_null(kind) else words


def columns_of(lines: Any, batch: dict[str, Any], meta: list[str | None]) -> Columns:
    """Columns of one batch, by name, of types that are as `expected`.

    Raises `NotFlat` for a value that does not fit its column (half an id, text that is not UTF-8).
    """
    rows = len(lines)
    try:
        response = _ragged(batch["response_token_ids"], pa.float64())
        lists = {
            name: _ragged(batch[name], kind)
            for name, kind in _ELEMENTS.items()
            if name in batch and _is_list(batch[name].type)
        }
        lists["response_token_ids"] = response
        if "reward" in lists:
            lists["token_rewards"] = lists.pop("reward")
        for name in ("advantage", "policy_version", "minibatch"):
            if name in batch and not _is_list(batch[name].type):
                lists[name] = _repeated(batch[name], _ELEMENTS[name], response)
        return Columns(
            lines=lines,
            step=batch["step"].cast(pa.int64()).to_pylist() if "step" in batch else [None] * rows,
            sample_id=_ids(batch["sample_id"]),
            group_id=_ids(batch["group_id"]),
            lists=lists,
            nested={name: _nested(batch[name], pa.float64()) for name in _NESTED if name in batch},
            reward=batch["reward"].cast(pa.float64()).to_pylist()
            if "reward" in batch and not _is_list(batch["reward"].type)
            else [None] * rows,
            texts={name: _strings(batch[name]).to_pylist() for name in _TEXTS if name in batch},
            logprobs_approximate=batch["logprobs_approximate"].to_pylist()
            if "logprobs_approximate" in batch
            else [None] * rows,
            meta=meta,
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise NotFlat from error


_ELEMENTS = {
    **dict.fromkeys(("prompt_token_ids", "response_token_ids", "response_mask"), pa.float64()),
    **dict.fromkeys(("rollout_logprobs", "old_logprobs", "new_logprobs", "reward", "advantage", "turn"), pa.float64()),
    "trainer_keep": pa.uint8(),
    **dict.fromkeys(("policy_version", "minibatch"), pa.int64()),
}
_NESTED = ("rollout_top_token_ids", "rollout_top_logprobs")
_TEXTS = ("prompt_text", "response_text", "finish_reason")


def _strings(array: Any) -> Any:
    return array.cast(pa.string())


def _ids(array: Any) -> list[str]:
    """Ids as text; null as the empty string, which is no id."""
    return [text or "" for text in _strings(array).to_pylist()]


def _present(array: Any) -> Bools:
    present: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    return present


def _elements(values: Any, kind: Any) -> tuple[Any, Bools | None]:
    values = values.cast(kind)
    known = None if values.null_count == 0 else _present(values)
    return values.fill_null(0).to_numpy(zero_copy_only=False), known


def _lists(array: Any) -> tuple[Bools, Any, Any]:
    """Which rows have a list, the lengths, and all elements end to end."""
    if not t.is_list(array.type):  # a cast from list<null> to itself loses elements (pyarrow 26)
        array = array.cast(pa.list_(array.type.value_type))
    present = _present(array)
    lengths = np.where(present, np.diff(array.offsets.to_numpy()), 0)
    return present, lengths, array.flatten()


def _ragged(array: Any, kind: Any) -> Ragged:
    present, lengths, elements = _lists(array)
    values, known = _elements(elements, kind)
    return Ragged(present, offsets_of(lengths), values, known)


def _nested(array: Any, kind: Any) -> Nested:
    present, lengths, positions = _lists(array)
    return Nested(present, offsets_of(lengths), _ragged(positions, kind))


def _repeated(array: Any, kind: Any, response: Ragged) -> Ragged:
    """A number for the whole response, once for every token."""
    present = _present(array)
    lengths = np.where(present, response.lengths, 0)
    values, _ = _elements(array, kind)
    return Ragged(present, offsets_of(lengths), np.repeat(values, lengths), None)

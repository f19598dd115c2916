"""What adapters tell the checks of a response: a word in its meta, where the record has no field for it.

policy_versions  [lowest, highest] of those that sampled it, where which token is whose is not known
summed_rewards   the columns that its reward is the sum of, because the file does not say which are rewards
"""

from __future__ import annotations

from typing import Any

import msgspec

from service.ingest.columns import Columns

__all__ = ["told"]

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def told(columns: Columns, word: str) -> list[tuple[int, list[Any]]]:
    """(row, list) of the rows whose meta has a list under `word`."""
    sought = f'"{word}":['
    found = [(row, text) for row, text in enumerate(columns.meta) if text is not None and sought in text]
    values = [(row, _decode(text).get(word)) for row, text in found]
    return [(row, value) for row, value in values if isinstance(value, list)]

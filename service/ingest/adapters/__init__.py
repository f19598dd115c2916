"""One file for each format that rollouts come in. An adapter turns a format's records into native ones.

To add a format: write `adapters/NAME.py` with an `Adapter`, and name it in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import Invalid
from service.ingest.adapters.base import Adapter
from service.ingest.adapters.native import NATIVE

__all__ = ["ADAPTERS", "Adapter", "choose"]

ADAPTERS: tuple[Adapter, ...] = (NATIVE,)


def choose(format_: str, names: frozenset[str], adapters: Sequence[Adapter] = ADAPTERS) -> Adapter:
    """The adapter called `format_`; for "auto" the first that recognises a record with these field names.

    A record that none recognises is taken for a native one, so that the errors speak of the native fields. Raises
    `Invalid` for a format that does not exist.
    """
    if format_ == "auto":
        return next((adapter for adapter in adapters if adapter.recognises(names)), NATIVE)
    for adapter in adapters:
        if adapter.name == format_:
            return adapter
    known = ", ".join(["auto", *(adapter.name for adapter in adapters)])
    raise Invalid(f"There is no format {format_!r}; the formats are {known}.")

"""One file for each format that rollouts come in. An adapter turns a format's records into native ones.

To add a format: write `adapters/NAME.py` with an `Adapter`, and name it in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import Invalid
from service.ingest.adapters.areal import AREAL
from service.ingest.adapters.atropos import ATROPOS
from service.ingest.adapters.base import Adapter, LeftOut
from service.ingest.adapters.dataproto import DATAPROTO
from service.ingest.adapters.foreign import CONVERTED, what_it_is
from service.ingest.adapters.native import NATIVE
from service.ingest.adapters.nemo_rl import NEMO_RL
from service.ingest.adapters.open_instruct import OPEN_INSTRUCT
from service.ingest.adapters.prime_rl import PRIME_RL
from service.ingest.adapters.roll import ROLL, ROLL_BOARD
from service.ingest.adapters.sglang import SGLANG
from service.ingest.adapters.skyrl import SKYRL
from service.ingest.adapters.trl import TRL
from service.ingest.adapters.verifiers import VERIFIERS
from service.ingest.adapters.verifiers_results import VERIFIERS_RESULTS
from service.ingest.adapters.verl import VERL
from service.ingest.adapters.vllm import VLLM

__all__ = ["ADAPTERS", "Adapter", "LeftOut", "choose"]

ADAPTERS: tuple[Adapter, ...] = (
    *(NATIVE, PRIME_RL, NEMO_RL, OPEN_INSTRUCT, ATROPOS, VERIFIERS, VERIFIERS_RESULTS),  # they log token ids
    *(VERL, TRL, AREAL, ROLL, ROLL_BOARD),  # they log text
    *(VLLM, SGLANG),  # engines
    *(SKYRL, DATAPROTO),  # rows that an export of `service.cli.exports` wrote
)


def choose(format_: str, names: frozenset[str], adapters: Sequence[Adapter] = ADAPTERS) -> Adapter:
    """The adapter called `format_`; for "auto" the first that recognises a record with these field names.

    A record that none recognises is taken for a native one, so that the errors speak of the native fields. Raises
    `Invalid` for a format that does not exist, and for a file that is known to be of no use as it is.
    """
    if format_ == "auto":
        found = next((adapter for adapter in adapters if adapter.recognises(names)), None)
        words = what_it_is(names) if found is None else None
        if words is not None:
            raise Invalid(f"This is {words}")
        return found or NATIVE
    for adapter in adapters:
        if adapter.name == format_:
            return adapter
    if format_ in CONVERTED:
        raise Invalid(
            f"{format_}'s dumps are joined where they are: `dppo convert {format_} FILES -o FILE.jsonl.gz` makes the "
            "file to upload."
        )
    known = ", ".join(["auto", *(adapter.name for adapter in adapters)])
    raise Invalid(f"There is no format {format_!r}; the formats are {known}.")

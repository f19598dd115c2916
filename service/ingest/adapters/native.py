"""The native rollout record: what every other format is turned into."""

from __future__ import annotations

from service.ingest.adapters.base import Adapter

__all__ = ["NATIVE"]


def _recognises(names: frozenset[str]) -> bool:
    return {"prompt_token_ids", "response_token_ids"} <= names


NATIVE = Adapter("native", _recognises)

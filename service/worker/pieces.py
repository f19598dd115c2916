"""Decoded pieces of token ids, from a tokenizer directory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

__all__ = ["Decode", "pieces_of"]

Decode = Callable[[int], str]


@lru_cache(maxsize=2)
def pieces_of(directory: str | None) -> Decode | None:
    """A function from token id to its text; None without a tokenizer."""
    if directory is None:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)

    @cache
    def decode(token_id: int) -> str:
        return str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return decode

"""The run's tokenizer, read from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Unusable", "load_tokenizer"]


class Unusable(Exception):
    """Why there is no tokenizer to be had."""


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer in `tokenizer.json`, without truncation or padding. Raises `Unusable`."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unusable("tokenising takes the worker extra: pip install 'dppo-lens[worker]'") from None
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise Unusable(f"{path} is missing; save the run's tokenizer with transformers' save_pretrained")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise Unusable(f"{path} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

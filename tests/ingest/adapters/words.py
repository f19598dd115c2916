"""A tokenizer of a few words, written by hand: the ids that tests expect can be read off `WORDS`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

__all__ = ["CHAT", "PAD", "WORDS", "words"]

PAD, BOS, EOS, UNK = 0, 1, 2, 3
WORDS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "user",
    "assistant",
    "\n",
    "2",
    "+",
    "?",
    "4",
    "four",
    " is",
    " it",
    "é",
    "0",
]

# A chat template as trainers have them: a line for the role, a line for the text.
CHAT = (
    "{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


def words(folder: Path, *, bos: bool = False, **config: Any) -> str:
    """Writes the tokenizer; its directory. `bos`: encoding puts <bos> first, as Llama's does."""
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("assistant|user|four| is| it|[^a]|a"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:4]])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)

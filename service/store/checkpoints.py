"""What a checkpoint directory holds, read without torch: safetensors only, inside the roots, no code.

Everything here is untrusted input. Nothing is loaded; only JSON files and safetensors headers are parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import FieldError, Invalid

__all__ = ["Inspected", "check_tokenizer", "inspect"]

MAX_JSON = 64 << 20
WHOLE_FILE = 256 << 20  # files up to this are hashed whole; larger ones by a sample of every tensor
TENSOR_SAMPLE = 4096


@dataclass(frozen=True)
class Inspected:
    """A checkpoint that can be scored. Fingerprints change when its files do."""

    path: str
    adapter: str | None
    fingerprint: str
    base_fingerprint: str
    adapter_fingerprint: str | None
    vocab_size: int
    max_positions: int | None
    warnings: list[str]


def inspect(path: str, adapter: str | None, roots: Sequence[Path]) -> Inspected:
    """Check a Hugging Face directory and, optionally, a LoRA adapter on it. Raises `Invalid` naming the field."""
    base = _directory(path, "path", roots)
    config = _read_json(base / "config.json", "path")
    _refuse_code(base, config)
    text_config = config.get("text_config") or config
    vocab = text_config.get("vocab_size")
    if not isinstance(vocab, int):
        raise _invalid("path", f"{base}/config.json names no vocab_size")
    shapes, base_print = _weights(base, "model.safetensors", "path")
    warnings: list[str] = []
    adapter_print = None
    if adapter is not None:
        folder = _directory(adapter, "adapter", roots)
        adapter_config = _read_json(folder / "adapter_config.json", "adapter")
        _check_adapter_kind(folder, adapter_config)
        adapter_shapes, adapter_print = _weights(folder, "adapter_model.safetensors", "adapter")
        adapter_print = _digest([adapter_print, adapter_config])
        _check_adapter_fits(folder, adapter_shapes, base, shapes, transposed=bool(adapter_config.get("fan_in_fan_out")))
        warnings += _compare_names(str(adapter_config.get("base_model_name_or_path") or ""), base, config)
    base_print = _digest([base_print, config])
    positions = text_config.get("max_position_embeddings")
    return Inspected(
        path=str(base),
        adapter=None if adapter is None else str(_directory(adapter, "adapter", roots)),
        fingerprint=_digest([base_print, adapter_print]),
        base_fingerprint=base_print,
        adapter_fingerprint=adapter_print,
        vocab_size=vocab,
        max_positions=positions if isinstance(positions, int) else None,
        warnings=warnings,
    )


def check_tokenizer(path: str, roots: Sequence[Path]) -> str:
    """The resolved directory of a tokenizer inside the roots, without code of its own."""
    folder = _directory(path, "tokenizer", roots)
    if not (folder / "tokenizer.json").exists() and not (folder / "tokenizer_config.json").exists():
        raise _invalid("tokenizer", f"{folder} holds no tokenizer.json or tokenizer_config.json")
    if (folder / "tokenizer_config.json").exists():
        _refuse_code(folder, _read_json(folder / "tokenizer_config.json", "tokenizer"), "tokenizer")
    return str(folder)


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(message, [FieldError(message, field=field)])


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _directory(path: str, field: str, roots: Sequence[Path]) -> Path:
    """The real path of a directory, which, like every file in it, must lie inside the roots."""
    if not Path(path).is_absolute():
        raise _invalid(field, f"{path!r} is not an absolute path (hub names need DPPO_ALLOW_HUB=1)")
    real = Path(path).resolve()
    allowed = os.pathsep.join(str(root) for root in roots)
    if not any(real.is_relative_to(root) for root in roots):
        raise _invalid(field, f"{path} lies outside the checkpoint roots ({allowed}); set DPPO_CHECKPOINT_ROOTS")
    if not real.is_dir():
        raise _invalid(field, f"{path} is not a directory")
    for entry in real.iterdir():
        target = entry.resolve()
        if not any(target.is_relative_to(root) for root in roots):
            raise _invalid(field, f"{entry} leads outside the checkpoint roots ({allowed})")
    return real


def _read_json(path: Path, field: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise _invalid(field, f"{path} is larger than {MAX_JSON >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _invalid(field, f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(field, f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _invalid(field, f"{path} is not a JSON object")
    return document


def _refuse_code(folder: Path, config: dict[str, Any], field: str = "path") -> None:
    if "auto_map" in config:
        raise _invalid(field, f"{folder} wants to run its own code (auto_map); only built-in architectures are scored")
    if config.get("quantization_config"):
        raise _invalid(field, f"{folder} is quantised; register the full-precision weights, scoring must be exact")


def _weights(folder: Path, single: str, field: str) -> tuple[dict[str, list[int]], str]:
    """Tensor shapes and a fingerprint of a directory's safetensors files."""
    index = folder / f"{single}.index.json"
    if (folder / single).exists():
        names = [single]
    elif index.exists():
        names = sorted({str(name) for name in _read_json(index, field).get("weight_map", {}).values()})
    else:
        others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        hint = f" ({', '.join(others[:3])} may run code when loaded: save it as safetensors)" if others else ""
        raise _invalid(field, f"{folder} holds no {single}{hint}")
    shapes: dict[str, list[int]] = {}
    prints = []
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise _invalid(field, f"{folder / name} is missing")
        found, digest = _safetensors(folder / name, field)
        shapes |= found
        prints.append([name, digest])
    return shapes, _digest(prints)


def _safetensors(path: Path, field: str) -> tuple[dict[str, list[int]], str]:
    size = path.stat().st_size
    hasher = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(MAX_JSON, size):
            raise _invalid(field, f"{path} is not a safetensors file, or is cut short")
        raw = file.read(length)
        try:
            header = json.loads(raw)
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            shapes = {name: list(entry["shape"]) for name, entry in tensors.items()}
            offsets = [entry["data_offsets"] for entry in tensors.values()]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise _invalid(field, f"{path} has no readable safetensors header: {error}") from error
        if size < 8 + length + end:
            raise _invalid(field, f"{path} is cut short: {size} bytes, its header promises {8 + length + end}")
        hasher.update(raw)
        if size <= WHOLE_FILE:
            for block in iter(lambda: file.read(1 << 20), b""):
                hasher.update(block)
        else:
            for start, stop in offsets:
                for place in (start, (start + stop) // 2, max(start, stop - TENSOR_SAMPLE)):
                    file.seek(8 + length + place)
                    hasher.update(file.read(min(TENSOR_SAMPLE, stop - place)))
    return shapes, hasher.hexdigest()


def _check_adapter_kind(folder: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _invalid("adapter", f"{folder} is a {config.get('peft_type')} adapter; LORA adapters are scored")
    for key in ("auto_mapping", "layer_replication", "alora_invocation_tokens"):
        if config.get(key):
            raise _invalid("adapter", f"{folder}/adapter_config.json sets {key}, which changes the base's structure")


def _check_adapter_fits(
    folder: Path, adapter: dict[str, list[int]], base: Path, shapes: dict[str, list[int]], *, transposed: bool
) -> None:
    """Every LoRA pair must fit the base tensor it names: [out, in] = B [out, r] · A [r, in]."""
    for name, shape in adapter.items():
        module, _, matrix = name.removeprefix("base_model.model.").partition(".lora_")
        if matrix[:1] not in {"A", "B"} or len(shape) != 2:
            continue
        target = shapes.get(f"{module}.weight")
        if target is None and module.startswith("lm_head"):
            continue  # tied to the embeddings, so not stored
        if target is None:
            raise _invalid("adapter", f"{folder} was trained on another base: {base} has no tensor {module}.weight")
        fan_out, fan_in = reversed(target) if transposed else target
        if shape[1 if matrix[0] == "A" else 0] != (fan_in if matrix[0] == "A" else fan_out):
            raise _invalid(
                "adapter",
                f"{folder} was trained on another base: {name} is {shape}, but {module}.weight of {base} is {target}",
            )


def _compare_names(named: str, base: Path, config: dict[str, Any]) -> list[str]:
    """The adapter's named base is compared and never followed."""
    if not named:
        return []
    short = Path(named).name
    known = {base.name, Path(str(config.get("_name_or_path") or "")).name, *(parent.name for parent in base.parents)}
    if short in known or any(name.endswith(f"--{short}") for name in known):
        return []
    return [f"the adapter names {named!r} as its base; it is scored on {base}"]

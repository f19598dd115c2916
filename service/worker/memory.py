"""Whether two models fit in memory at once: what their files will take, and what the machine has left."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch

__all__ = ["available_bytes", "row_bytes", "weight_bytes"]

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def weight_bytes(path: str, dtype: torch.dtype) -> int:
    """Bytes of a checkpoint's parameters in memory, from the headers of its safetensors files."""
    values = 0
    for file in Path(path).glob("*.safetensors"):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        values += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return values * dtype.itemsize


def row_bytes(path: str, dtype: torch.dtype) -> int:
    """Bytes of one hidden state of a checkpoint."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, local_files_only=True)  # which knows GPT-2's n_embd by this name too
    return int(config.get_text_config().hidden_size) * dtype.itemsize


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be taken: a GPU's free memory; on a CPU also within the container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_machine(), _container())


def _machine() -> int:
    """Linux says what could be taken without swapping; elsewhere half of the memory stands for it."""
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _container() -> int:
    """What the control group (v2) leaves, file cache taken as free. Beyond any machine where there is no limit."""
    no_limit = 1 << 62
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        facts = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
    except OSError:
        return no_limit
    return no_limit if limit == "max" else int(limit) - used + int(facts["inactive_file"])

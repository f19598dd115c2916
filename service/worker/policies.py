"""Policies from checkpoints: Hugging Face causal LMs from safetensors, with or without a LoRA adapter.

Adapters of one base share its weights in memory. The final product with the LM head is done by us, in float32,
after a probe has shown that it gives the model's own logits. Prompts are shared where `can_branch` allows it.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dppo_core.two_policy import LogitRows
from service.errors import Invalid
from service.worker.batches import Batch
from service.worker.memory import available_bytes, weight_bytes
from service.worker.sharing import branching, can_branch

__all__ = ["Checkpoint", "Head", "Policy", "PolicyPool", "pick_device"]

SPARE_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}  # activations and the statistics' buffers
WEIGHTS_MARGIN = 1.25  # the float32 LM head, adapters, fragmentation
FEW_ROWS = 32  # a CPU sums the product of fewer rows in another order, and the last rows of a chunk would stand out

_names = itertools.count()


@dataclass(frozen=True)
class Checkpoint:
    """Where a policy's weights lie: a Hugging Face directory and, optionally, a PEFT adapter directory.

    The fingerprints are part of the identity, so that a path overwritten later is loaded afresh.
    """

    path: str
    fingerprint: str
    adapter: str | None = None
    adapter_fingerprint: str | None = None

    @property
    def base_key(self) -> tuple[str, str]:
        return self.path, self.fingerprint

    @property
    def adapter_key(self) -> tuple[str, str | None] | None:
        return None if self.adapter is None else (self.adapter, self.adapter_fingerprint)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`; an unavailable device is an error, never a silent fallback."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Invalid(f"DPPO_DEVICE={name}, but torch {torch.__version__} sees no CUDA device")
    return device


@dataclass
class _Base:
    """One base model in memory and the adapters loaded on it."""

    model: Any
    head: nn.Module
    vocab_size: int
    transform: Callable[[Tensor], Tensor] | None
    can_branch: bool
    adapters: dict[Any, str] = field(default_factory=dict)  # adapter_key → name in peft
    peft: Any = None


@dataclass(frozen=True)
class Head:
    """A policy's LM head, which outlives its backbone."""

    module: nn.Module
    adapter: str | None
    transform: Callable[[Tensor], Tensor] | None

    def logits_of(self, hidden_ND: Tensor) -> LogitRows:
        """Float32 logits of hidden rows [N, D], produced a chunk at a time."""
        module: Any = self.module

        def write(start: int, stop: int, out: Tensor) -> None:
            rows = hidden_ND[start:stop].float()
            if len(rows) < FEW_ROWS:
                rows = pad(rows, (0, 0, 0, FEW_ROWS - len(rows)))
            with torch.inference_mode():
                if type(module) is nn.Linear and module.bias is None and len(rows) == len(out):
                    torch.mm(rows, module.weight.T, out=out)
                else:
                    if hasattr(module, "enable_adapters"):  # the head itself carries adapters
                        module.enable_adapters(self.adapter is not None)
                        if self.adapter is not None:
                            module.set_adapter(self.adapter)
                    out.copy_(module(rows)[: len(out)])
                if self.transform is not None:
                    out.copy_(self.transform(out))

        return write


@dataclass(frozen=True)
class Policy:
    """One checkpoint, ready to score. `vocab_size` is the width of its logits."""

    base: _Base
    adapter: str | None
    device: torch.device

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def can_branch(self) -> bool:
        """Whether packed batches give this policy's hidden states."""
        return self.base.can_branch

    @property
    def head(self) -> Head:
        return Head(self.base.head, self.adapter, self.base.transform)

    def hidden(self, token_ids_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Tensor:
        """Final hidden states [B, T, D] of right-padded sequences, in the backbone's dtype."""
        return self._run(input_ids=token_ids_BT, attention_mask=attention_mask_BT)

    @torch.inference_mode()
    def hidden_rows(self, batch: Batch) -> Tensor:
        """The hidden states [N, D] that predict a batch's counted tokens, whichever its layout."""
        with branching(self.base.model, batch.trees, self.device):
            hidden = self._run(
                input_ids=batch.token_ids_BT, attention_mask=batch.attention_mask_BT, position_ids=batch.position_ids_BT
            )
        return hidden.flatten(0, 1).index_select(0, batch.at.to(self.device))

    def logits_of(self, hidden_ND: Tensor) -> LogitRows:
        """Float32 logits of hidden rows [N, D], produced a chunk at a time."""
        return self.head.logits_of(hidden_ND)

    @torch.inference_mode()
    def _run(self, **inputs: Tensor | None) -> Tensor:
        given = {name: values.to(self.device) for name, values in inputs.items() if values is not None}
        with self._active():
            output = self.base.model.base_model(**given, use_cache=False)
        return output.last_hidden_state  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _active(self) -> Iterator[None]:
        peft = self.base.peft
        if peft is None:
            yield
        elif self.adapter is None:
            with peft.disable_adapter():
                yield
        else:
            peft.set_adapter(self.adapter)
            yield


class PolicyPool:
    """Loads policies on demand and keeps the bases that the next task is likely to need."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._bases: dict[tuple[str, str], _Base] = {}

    def get(self, checkpoints: list[Checkpoint]) -> list[Policy]:
        """The policies of `checkpoints`, all usable at once. What they do not need is dropped first."""
        self._keep(checkpoints)
        adapters = {checkpoint.adapter_key for checkpoint in checkpoints}
        return [self._policy(checkpoint, adapters) for checkpoint in checkpoints]

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's base is in memory."""
        return checkpoint.base_key in self._bases

    def fits(self, checkpoints: list[Checkpoint]) -> bool:
        """Whether all of `checkpoints` can be in memory at once, after dropping what they do not need."""
        self._keep(checkpoints)
        missing = {checkpoint.base_key for checkpoint in checkpoints} - self._bases.keys()
        wanted = sum(weight_bytes(path, self.dtype) for path, _ in missing)
        room = available_bytes(self.device) - SPARE_BYTES[self.device.type]
        return len(missing) == 0 or WEIGHTS_MARGIN * wanted <= room

    def _keep(self, checkpoints: list[Checkpoint]) -> None:
        needed = {checkpoint.base_key for checkpoint in checkpoints}
        unneeded = [key for key in self._bases if key not in needed]
        for key in unneeded:
            del self._bases[key]
        if unneeded:
            gc.collect()  # a model's modules may refer to each other
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _policy(self, checkpoint: Checkpoint, needed: set[Any]) -> Policy:
        if checkpoint.base_key not in self._bases:
            self._bases[checkpoint.base_key] = _load_base(checkpoint.path, self.device, self.dtype)
        base = self._bases[checkpoint.base_key]
        if checkpoint.adapter is None:
            return Policy(base, None, self.device)
        if checkpoint.adapter_key not in base.adapters:
            stale = [key for key in base.adapters if key not in needed]
            _load_adapter(base, checkpoint, self.dtype)
            for key in stale:
                base.peft.delete_adapter(base.adapters.pop(key))
        return Policy(base, base.adapters[checkpoint.adapter_key], self.device)


def _load_base(path: str, device: torch.device, dtype: torch.dtype) -> _Base:
    from transformers import AutoModelForCausalLM

    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa", **options)
    except ValueError as error:  # soft-capped or sink attention, which sdpa does not compute
        if "attention implementation" not in str(error):
            raise
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **options)
    model.to(device).eval().requires_grad_(False)
    vocab_size, transform = _probe(model, path)
    head = model.get_output_embeddings()
    if dtype != torch.float32:
        if type(head) is not nn.Linear:
            raise Invalid(f"{path}: its LM head ({type(head).__name__}) can be scored with dtype float32 only")
        float_head = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None, device="meta")
        float_head.weight = nn.Parameter(head.weight.float(), requires_grad=False)
        if head.bias is not None:
            float_head.bias = nn.Parameter(head.bias.float(), requires_grad=False)
        head = float_head
    return _Base(model, head, vocab_size, transform, can_branch(model))


def _probe(model: Any, path: str) -> tuple[int, Callable[[Tensor], Tensor] | None]:
    """The width of the logits, and proof that head(backbone(x)), after what the config says, is the model's own."""
    config = model.config.get_text_config()
    ids = torch.arange(8, device=model.device).unsqueeze(0) % config.vocab_size
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits.float()
        plain = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    plain = plain.float()
    cap = getattr(config, "final_logit_softcapping", None)
    divide, multiply = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    candidates: list[Callable[[Tensor], Tensor] | None] = [None]
    if cap:
        candidates.append(lambda logits: torch.tanh(logits / cap) * cap)
    if divide:
        candidates.append(lambda logits: logits / divide)
    if multiply:
        candidates.append(lambda logits: logits * multiply)
    tolerance = (1e-4 if expected.dtype == model.dtype else 0.05) * max(1.0, float(expected.abs().max()))
    for transform in candidates:
        found = transform(plain) if transform else plain
        if float((found - expected).abs().max()) <= tolerance:
            return expected.shape[-1], transform
    raise Invalid(
        f"{path}: {type(model).__name__} does more to its logits than its LM head, so scoring it would not be exact"
    )


def _load_adapter(base: _Base, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    from peft import PeftModel

    name = f"adapter{next(_names)}"
    options = {"adapter_name": name, "is_trainable": False, "local_files_only": True}
    if base.peft is None:
        base.peft = PeftModel.from_pretrained(base.model, checkpoint.adapter, **options)
    else:
        base.peft.load_adapter(checkpoint.adapter, **options)
        base.peft.set_adapter(name)  # so that none in use is deleted
    base.peft.eval()
    base.adapters[checkpoint.adapter_key] = name
    head = base.model.get_output_embeddings()
    if dtype == torch.float32:
        base.head = head
    elif type(head) is not nn.Linear:
        raise Invalid(f"{checkpoint.adapter}: an adapter on the LM head can be scored with dtype float32 only")

"""What an analysis's segments say beyond its tokens: how methods agree, the bounds, and PIPO's improvement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dppo_core.bounds import lower_bounds
from dppo_core.intervals import TVInterval
from dppo_core.methods.catalog import METHODS
from dppo_core.methods.registry import Method, Unavailable
from dppo_core.tokens import TokenArrays
from service.process import Emit, Message
from service.schemas.decisions import DECISION_SCHEMA
from service.schemas.measures import MEASURES
from service.schemas.segment import PAIRS
from service.worker.improvement import mean_reward, pipo_rows

__all__ = ["Agreement", "Decided", "bounds_of", "measure", "tokens_of"]

CHUNK = 1 << 16  # tokens a matrix product, so that float32 counts are exact

_PAIR_OF = {  # which pair of the segment is anchor → π, by evaluation point and anchor
    ("start", "rollout"): "rollout_old",
    ("end", "rollout"): "rollout_new",
    ("end", "old"): "old_new",
    ("logged", "rollout"): "rollout_logged",
    ("logged", "old"): "logged_logged",
}
_POLICIES = {  # evaluation point → the segment's columns for π_old and π
    "start": ("logp_old", "logp_old"),
    "end": ("logp_old", "logp_new"),
    "logged": ("logp_old_logged", "logp_new_logged"),
}


_COLUMNS = [
    *("group_id", "sample_id", "counted", "advantage", "reward", "entropy_old"),
    *("logp_rollout", "logp_old", "logp_new", "logp_old_logged", "logp_new_logged"),
    *(f"{name}__{pair}" for pair, names in PAIRS.items() for name in names),
]


def measure(task: Message, emit: Emit) -> Message:
    """Write the tables `MEASURES` of one analysis, and every method's decisions by step, as Parquet into the folder
    `task["out"]`; harmless to repeat.

    The task: segments ([step, path] of each), evaluated_at, thresholds (those of the analysis, which the PPO and DPPO
    methods take; every other method has its own defaults), out.
    """
    agreement = Agreement(list(METHODS.values()), task["thresholds"])
    rates: list[dict[str, Any]] = []
    bounds, rewards = [], {}
    out = Path(task["out"])
    (out / "decisions").mkdir(parents=True, exist_ok=True)
    for step, path in task["segments"]:
        segment = pq.read_table(path, columns=_COLUMNS, partitioning=None)
        decided = agreement.add(tokens_of(segment, task["evaluated_at"]), lambda: emit({"event": "measured"}))
        rates += agreement.rates(step, decided.counts)
        bounds.append({"step": step, **bounds_of(segment)})
        _write_decisions(out / "decisions" / f"{step}.parquet", step, segment["counted"], decided)
        rewards[step] = mean_reward(segment)
    tables = {
        "method_agreement": list(agreement.rows()),
        "method_rates": rates,
        "pipo": list(pipo_rows(rewards)),
        "bounds": bounds,
    }
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows, schema=MEASURES[name]), out / f"{name}.parquet")
    return {"steps": len(task["segments"])}


def _write_decisions(path: Path, step: int, counted: pa.ChunkedArray, decided: Decided) -> None:
    """One row a counted token (`DECISION_SCHEMA`): its row in the segment, and what every method decides of it."""
    rows = np.flatnonzero(counted.to_numpy())
    columns = {
        "step": pa.array(np.full(len(rows), step), pa.uint32()),
        "segment_row": pa.array(rows, pa.uint32()),
        **{
            method.name: pa.array(keep.numpy(), mask=~known.numpy())
            for method, keep, known in zip(METHODS.values(), decided.keep, decided.known, strict=True)
        },
    }
    pq.write_table(
        pa.table([columns[name] for name in DECISION_SCHEMA.names], schema=DECISION_SCHEMA),
        path,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"segment_row": "DELTA_BINARY_PACKED"},
    )


def tokens_of(segment: pa.Table, evaluated_at: str) -> TokenArrays:
    """The counted tokens of one step's segment (`SEGMENT_SCHEMA`, sorted by sample) as the methods' input.

    `new` is the policy at the evaluation point. What is stored is decided on as stored.
    """
    segment = segment.filter(pc.field("counted")).combine_chunks()

    def column(name: str) -> Tensor:
        values = segment[name].cast(pa.float64()).fill_null(float("nan"))
        return torch.from_numpy(values.to_numpy().copy())

    samples, groups = (_codes(segment[name]) for name in ("sample_id", "group_id"))
    first = np.flatnonzero(np.diff(samples, prepend=-1))
    policies = _POLICIES[evaluated_at]
    if evaluated_at == "start" and segment["logp_old"].null_count == segment.num_rows:  # nothing was scored
        policies = ("logp_old_logged", "logp_old_logged")
    old, new = (column(name) for name in policies)
    statistics: dict[str, Tensor] = {}
    for anchor in ("rollout", "old"):
        pair = _PAIR_OF.get((evaluated_at, anchor))
        if pair is None:  # old → old
            zero = torch.where(old.isnan(), torch.nan, 0.0)
            statistics |= {f"{name}_old": zero for name in PAIRS["old_new"]}
            continue
        statistics |= {f"{name}_{anchor}": column(f"{name}__{pair}") for name in PAIRS[pair]}
    if evaluated_at != "logged":
        statistics["log_mismatch"] = column("log_ratio__rollout_old")
    return TokenArrays(
        advantage=column("advantage"),
        sequence=torch.from_numpy(samples),
        logp_rollout=column("logp_rollout"),
        logp_old=old,
        logp_new=new,
        entropy=column("entropy_old"),
        group=torch.from_numpy(groups[first]),
        reward=column("reward")[torch.from_numpy(first)],
        statistics=statistics,
    )


def bounds_of(segment: pa.Table) -> dict[str, Any]:
    """Theorem 3.1 and Eq. 7 and 8 of one step, old → new; null for what is not known.

    From the exact TV where both checkpoints were scored, else from what the trainer's own log-probs certify.
    """
    tokens = tokens_of(segment, "end")
    if tokens.missing("tv_exact_old") is None:
        tv = TVInterval.exact(tokens.divergence("tv", "exact", "old"))
    else:
        tokens = tokens_of(segment, "logged")
        tv = TVInterval.from_sampled(_given(tokens.logp_old), _given(tokens.logp_new))
    mismatch = None if tokens.missing("logp_rollout") else tokens.log_mismatch
    found = lower_bounds(tokens.log_ratio("old"), tokens.sequence, _given(tokens.reward), tv, log_mismatch=mismatch)
    values = {field.name: getattr(found, field.name) for field in MEASURES["bounds"] if field.name != "step"}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _given(values: Tensor | None) -> Tensor:
    assert values is not None  # tokens_of sets it
    return values


def _codes(names: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """0, 1, … in order of first appearance."""
    codes = names.combine_chunks().dictionary_encode().indices.cast(pa.int64())
    return np.array(codes.to_numpy(zero_copy_only=False))  # a copy: torch wants to own it


@dataclass(frozen=True)
class Decided:
    """What M methods decide of one step's N tokens.

    keep, known [M, N] bool: as `Coefficients` has them, A = 0 included; false and false of a method that could not be
    evaluated. counts [M, 2, 2]: method, A < 0 or > 0, keep or drop.
    """

    keep: Tensor
    known: Tensor
    counts: Tensor


@dataclass
class _Counts:
    """Counts [M, M] of tokens with A ≠ 0, by what the row's and the column's method decide. What only the column's
    drops is the transpose of what only the row's does."""

    both_keep: Tensor
    only_method_drops: Tensor
    both_drop: Tensor

    @classmethod
    def zero(cls, size: int) -> _Counts:
        return cls(*(torch.zeros(size, size, dtype=torch.float64) for _ in range(3)))


class Agreement:
    """Pairwise agreement of methods, added up over the steps of an analysis.

    Tokens with A = 0 have no gradient and are in no count; nor is a token where either method does not know.
    Unverified methods are not counted.
    """

    def __init__(self, methods: list[Method], thresholds: dict[str, Any]) -> None:
        self.methods = methods
        self._chosen = [_parameters(method, thresholds) for method in methods]
        self._counts = _Counts.zero(len(methods))
        self._by_sign = torch.zeros(len(methods), 2, 2, dtype=torch.float64)  # method, A < 0 or > 0, keep or drop
        self._reasons: list[str | None] = [
            "its formula is not verified" if method.status == "unverified" else None for method in methods
        ]
        self._evaluated = [False] * len(methods)

    def add(self, tokens: TokenArrays, on_method: Callable[[], None] = lambda: None) -> Decided:
        """Evaluate every method on one step's tokens; `on_method`, a sign of life, is called after each."""
        signed = tokens.advantage.sign()
        by_sign = torch.zeros_like(self._by_sign)
        keeps, knowns = [], []
        for index, method in enumerate(self.methods):
            keep = known = torch.zeros(len(signed), dtype=torch.bool)
            if method.status != "unverified":
                try:
                    found = method(tokens, **self._chosen[index])
                    keep, known = found.keep, found.known
                    self._evaluated[index] = True
                except Unavailable as error:
                    self._reasons[index] = self._reasons[index] or str(error).partition(": ")[2]
            keeps.append(keep)
            knowns.append(known)
            for side, sign in enumerate((-1, 1)):
                of_sign = known & (signed == sign)
                by_sign[index, side, 0] = (of_sign & keep).sum()
                by_sign[index, side, 1] = (of_sign & ~keep).sum()
            on_method()
        self._by_sign += by_sign
        decided = Decided(torch.stack(keeps), torch.stack(knowns), by_sign)
        self._count(decided.keep, decided.known & (signed != 0))
        return decided

    def rates(self, step: int, by_sign: Tensor) -> Iterator[dict[str, Any]]:
        """A step's `Decided.counts` as rows, one a method and sign; none for a method that knows no token of it."""
        for method, counts in zip(self.methods, by_sign.long().tolist(), strict=True):
            for sign, (kept, dropped) in zip((-1, 1), counts, strict=True):
                if kept + dropped:
                    n = kept + dropped
                    yield {"step": step, "method": method.name, "sign": sign, "n": n, "n_drop": dropped}

    def _count(self, keep: Tensor, known: Tensor) -> None:
        for start in range(0, keep.shape[1], CHUNK):
            part, kept = known[:, start : start + CHUNK], keep[:, start : start + CHUNK]
            k, d = (part & kept).float(), (part & ~kept).float()
            self._counts.both_keep += (k @ k.T).double()
            self._counts.only_method_drops += (d @ k.T).double()
            self._counts.both_drop += (d @ d.T).double()

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per ordered pair of methods, the pair of each with itself included."""
        for i, method in enumerate(self.methods):
            reason = None if self._evaluated[i] else self._reasons[i]
            rates = [_ratio(float(kept_dropped[1]), float(kept_dropped.sum())) for kept_dropped in self._by_sign[i]]
            for j, other in enumerate(self.methods):
                counts = self._counts
                cells = [
                    float(counts.both_keep[i, j]),
                    float(counts.only_method_drops[i, j]),
                    float(counts.only_method_drops[j, i]),
                    float(counts.both_drop[i, j]),
                ]
                yield {
                    "method": method.name,
                    "other": other.name,
                    "n": int(sum(cells)),
                    "n_both_keep": int(cells[0]),
                    "n_only_method_drops": int(cells[1]),
                    "n_only_other_drops": int(cells[2]),
                    "n_both_drop": int(cells[3]),
                    "agreement": _ratio(cells[0] + cells[3], sum(cells)),
                    "kappa": cohen_kappa(*cells),
                    "drop_rate_negative": rates[0],
                    "drop_rate_positive": rates[1],
                    "reason": reason,
                }


def cohen_kappa(both_keep: float, only_method: float, only_other: float, both_drop: float) -> float | None:
    """Cohen's κ = (p_o − p_e)/(1 − p_e) of two binary decisions; None where chance agreement is already 1."""
    n = both_keep + only_method + only_other + both_drop
    if n == 0:
        return None
    method_drops, other_drops = (only_method + both_drop) / n, (only_other + both_drop) / n
    chance = method_drops * other_drops + (1 - method_drops) * (1 - other_drops)
    return None if chance == 1 else ((both_keep + both_drop) / n - chance) / (1 - chance)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _parameters(method: Method, thresholds: dict[str, Any]) -> dict[str, Any]:
    """The analysis's thresholds, for the methods that PPO's and DPPO's thresholds are meant for."""
    if method.name.partition("_")[0] not in ("ppo", "dppo"):
        return {}
    kind = "kl" if "kl" in method.name.split("_") else "tv"
    offered = {
        **{name: thresholds[name] for name in ("eps_low", "eps_high", "dual_clip", "weight_cap")},
        "delta_low": thresholds[f"delta_{kind}_low"],
        "delta_high": thresholds[f"delta_{kind}_high"],
    }
    return {name: value for name, value in offered.items() if name in method.parameters}

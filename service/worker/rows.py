"""Token rows of a segment: what the log says and what the models say, joined per response token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dppo_core.divergence import binary_kl, binary_tv, topk_kl, topk_tv
from dppo_core.topk import LoggedSupport, TopKMode, logged_support
from service.schemas.segment import SEGMENT_SCHEMA
from service.worker.pairs import Scored
from service.worker.pieces import Decode

__all__ = ["Logged", "read_logged", "segment_rows"]


@dataclass(frozen=True)
class Logged:
    """The log's own numbers on the N counted tokens of a table, in row and position order; NaN = not known.

    first_counted [rows + 1]: where each row's counted tokens begin; lengths [rows]: response tokens;
    counted [all response tokens] bool; token_ids [N]; rollout, old, new [N] log-probs;
    top_ids [N, L] (−1 padded) and top_logp [N, L], or None where no row has lists.
    """

    first_counted: list[int]
    lengths: np.ndarray[Any, np.dtype[np.int64]]
    counted: np.ndarray[Any, np.dtype[np.bool_]]
    token_ids: Tensor
    rollout: Tensor
    old: Tensor
    new: Tensor
    top_ids: Tensor | None
    top_logp: Tensor | None

    def support(self, at: Tensor, k: int, mode: TopKMode) -> LoggedSupport | None:
        """A' of μ for the counted tokens `at`, from its logged lists."""
        if self.top_ids is None or self.top_logp is None:
            return None
        return logged_support(self.top_ids[at], self.top_logp[at], self.token_ids[at], self.rollout[at], k, mode)

    def support_ids(self, at: Tensor, k: int, mode: TopKMode) -> Tensor | None:
        """The ids of `support`, −1 where it is not known."""
        support = self.support(at, k, mode)
        if support is None:
            return None
        return torch.where(support.known.unsqueeze(1), support.ids, -1)


def _spread_lists(
    column: pa.ListArray, lengths: np.ndarray[Any, Any]
) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.int64]]]:
    """The values of a list column's valid rows, and the flat place of each among all rows' response tokens."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return column.flatten(), np.flatnonzero(np.repeat(valid, lengths))


def _flat(table: pa.Table, name: str, dtype: Any, missing: Any) -> np.ndarray[Any, Any]:
    """A list column over the response as one flat array; rows without it, and nulls, become `missing`."""
    lengths = table["response_tokens"].to_numpy()
    values, places = _spread_lists(table[name].combine_chunks(), lengths)
    flat = np.full(int(lengths.sum()), missing, dtype=dtype)
    flat[places] = values.fill_null(missing).to_numpy(zero_copy_only=False)
    return flat


def read_logged(table: pa.Table) -> Logged:
    """The logged numbers of a rollout table (`ROLLOUT_SCHEMA`)."""
    counted = _flat(table, "response_mask", np.bool_, missing=True)
    lengths = table["response_tokens"].to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    before = np.concatenate([[0], np.cumsum(counted)])
    first_counted = [0, *before[ends].tolist()]

    def logprobs(name: str) -> Tensor:
        return torch.from_numpy(_flat(table, name, np.float64, missing=np.nan)[counted])

    top_ids, top_logp = _read_lists(table, lengths, counted)
    return Logged(
        first_counted=first_counted,
        lengths=lengths,
        counted=counted,
        token_ids=torch.from_numpy(_flat(table, "response_token_ids", np.int64, missing=0)[counted]),
        rollout=logprobs("rollout_logprobs"),
        old=logprobs("old_logprobs"),
        new=logprobs("new_logprobs"),
        top_ids=top_ids,
        top_logp=top_logp,
    )


def _read_lists(
    table: pa.Table, lengths: np.ndarray[Any, Any], counted: np.ndarray[Any, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """The logged top-L lists of counted tokens as rectangles, padded with id −1 and log-prob NaN."""
    ids_column = table["rollout_top_token_ids"].combine_chunks()
    logp_column = table["rollout_top_logprobs"].combine_chunks()
    if ids_column.null_count == len(ids_column):
        return None, None
    inner, places = _spread_lists(ids_column, lengths)  # a list per response token
    sizes = inner.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    shape = (int(lengths.sum()), max(1, int(sizes.max(initial=0))))
    rows = np.repeat(places, sizes)
    columns = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    top_ids, top_logp = np.full(shape, -1, dtype=np.int64), np.full(shape, np.nan)
    top_ids[rows, columns] = inner.flatten().to_numpy(zero_copy_only=False)
    logp = _spread_lists(logp_column, lengths)[0].flatten()
    top_logp[rows, columns] = logp.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return torch.from_numpy(top_ids[counted]), torch.from_numpy(top_logp[counted])


def segment_rows(
    table: pa.Table,
    logged: Logged,
    scored: Scored | None,
    decode: Decode | None,
    *,
    top_k: int,
    topk_mode: TopKMode,
    anchored: bool,
) -> tuple[pa.Table, dict[str, int]]:
    """All response tokens of `table` as rows of `SEGMENT_SCHEMA`, and counts of what could not be used.

    `anchored` is false where the logged rollout log-probs are not μ (raw, at a temperature other than 1): then
    every pair that starts at the rollout stays null.
    """
    unknown = torch.full_like(logged.rollout, torch.nan)
    stats = scored.stats if scored else None
    old = stats.logp_old if stats else unknown
    new = stats.logp_new if stats else unknown
    rollout = logged.rollout if anchored else unknown
    every = torch.arange(len(rollout))
    support = logged.support(every, top_k, topk_mode) if stats and anchored else None

    columns: dict[str, Tensor] = {
        "logp_rollout": logged.rollout,
        "logp_old": old,
        "logp_new": new,
        "logp_old_logged": logged.old,
        "logp_new_logged": logged.new,
    }
    # without models the trainer's own π_old stands for OLD, and the mismatch is its own too
    columns |= _binary("rollout_old", rollout, old if stats else logged.old, stats.log1mp_old if stats else None)
    columns |= _binary("rollout_new", rollout, new, stats.log1mp_new if stats else None)
    columns |= _binary("rollout_logged", rollout, logged.new, None)
    columns |= _binary("logged_logged", logged.old, logged.new, None)
    if stats:
        columns["log_ratio__old_new"] = new - old
        for name in ("tv_binary", "kl_binary", "tv_topk", "kl_topk", "tv_exact", "kl_exact"):
            columns[f"{name}__old_new"] = getattr(stats, name)
        for name in ("topk_mass_old", "topk_mass_new", "entropy_old", "entropy_new", "grad_norm_new"):
            columns[name] = getattr(stats, name)
    if scored and scored.noise is not None:
        noise = scored.noise
        found = {"noise_logp": (noise.logp_new - noise.logp_old).abs(), "noise_tv": noise.tv_exact}
        for name, values in {**found, "noise_kl": noise.kl_exact}.items():
            columns[name] = unknown.index_put((scored.noise_at,), values)
    if stats and support is not None:
        columns |= _topk("rollout_old", support, stats.support_logp_old, stats.support_rest_old)
        columns |= _topk("rollout_new", support, stats.support_logp_new, stats.support_rest_new)
    rows = _assemble(table, logged, columns, decode)
    unusable = 0 if support is None else int((~support.known).sum())
    return rows, {
        "counted": len(rollout),
        "no_rollout_logprob": int(torch.isnan(logged.rollout).sum()),
        "unusable_lists": unusable,
    }


def _binary(pair: str, anchor: Tensor, policy: Tensor, log1m_policy: Tensor | None) -> dict[str, Tensor]:
    return {
        f"log_ratio__{pair}": policy - anchor,
        f"tv_binary__{pair}": binary_tv(anchor, policy),
        f"kl_binary__{pair}": binary_kl(anchor, policy, None, log1m_policy),
    }


def _topk(pair: str, support: LoggedSupport, logq: Tensor, rest_q: Tensor) -> dict[str, Tensor]:
    used = support.ids >= 0
    pairs = {
        "tv_topk": topk_tv(support.logp, logq, used, support.log_rest, rest_q),
        "kl_topk": topk_kl(support.logp, logq, used, support.log_rest, rest_q),
    }
    return {f"{name}__{pair}": torch.where(support.known, value, torch.nan) for name, value in pairs.items()}


def _assemble(table: pa.Table, logged: Logged, columns: dict[str, Tensor], decode: Decode | None) -> pa.Table:
    """Spread the counted tokens' statistics over all response tokens; NaN becomes null."""
    total = len(logged.counted)
    row_of = np.repeat(np.arange(len(logged.lengths)), logged.lengths)
    starts = np.cumsum(logged.lengths) - logged.lengths
    token_ids = _flat(table, "response_token_ids", np.int64, missing=0)

    def spread(values: Tensor) -> pa.Array:
        wide = np.full(total, np.nan)
        wide[logged.counted] = values.numpy()
        return pa.array(wide.astype(np.float32), pa.float32(), mask=np.isnan(wide))

    def repeated(name: str) -> pa.Array:
        return table[name].combine_chunks().take(pa.array(row_of))

    def listed(name: str, kind: pa.DataType) -> pa.Array:
        values, places = _spread_lists(table[name].combine_chunks(), logged.lengths)
        at = np.full(total, -1, dtype=np.int64)
        at[places] = np.arange(len(places))
        return values.cast(kind).take(pa.array(at, mask=at < 0))

    arrays: dict[str, pa.Array] = {
        "group_id": repeated("group_id"),
        "sample_id": repeated("sample_id"),
        "position": pa.array(np.arange(total) - starts[row_of], pa.uint32()),
        "turn": listed("turn", pa.uint32()),
        "token_id": pa.array(token_ids, pa.uint32()),
        "token": pa.array([decode(int(token)) for token in token_ids] if decode else [None] * total, pa.string()),
        "counted": pa.array(logged.counted),
        "advantage": listed("advantage", pa.float64()),
        "reward": repeated("reward"),
        "trainer_keep": listed("trainer_keep", pa.bool_()),
    }
    for field in SEGMENT_SCHEMA:
        if field.name not in arrays:
            values = columns.get(field.name)
            arrays[field.name] = pa.nulls(total, field.type) if values is None else spread(values)
    return pa.table([arrays[field.name] for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA)

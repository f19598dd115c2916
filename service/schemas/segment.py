"""The token segment: one row per response token of one scored step, facts only, never thresholds.

`service.worker` writes these rows as shards, the store merges them, the contract's `tokens` view reads them.
Five pairs of policies are known to a segment; a divergence and its direction always come from one of them:

    rollout_old      μ → OLD      the mismatch; what a mask anchored on the rollout sees at the step's start
                                  (nothing scored: μ → the trainer's own old_logprobs, binary only)
    rollout_new      μ → NEW      … at the step's end
    rollout_logged   μ → the trainer's own new_logprobs (binary only)
    old_new          OLD → NEW    everything, exact too
    logged_logged    the trainer's own old_logprobs → new_logprobs (binary only)

Statistics are computed in float64, rounded once to float32, stored so, and decided on as stored. Null: not known.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["PAIRS", "SEGMENT_SCHEMA"]

PAIRS: dict[str, tuple[str, ...]] = {
    "rollout_old": ("log_ratio", "tv_binary", "kl_binary", "tv_topk", "kl_topk"),
    "rollout_new": ("log_ratio", "tv_binary", "kl_binary", "tv_topk", "kl_topk"),
    "rollout_logged": ("log_ratio", "tv_binary", "kl_binary"),
    "old_new": ("log_ratio", "tv_binary", "kl_binary", "tv_topk", "kl_topk", "tv_exact", "kl_exact"),
    "logged_logged": ("log_ratio", "tv_binary", "kl_binary"),
}

_float32 = [
    "logp_rollout",
    "logp_old",
    "logp_new",
    "logp_old_logged",
    "logp_new_logged",
    *(f"{statistic}__{pair}" for pair, statistics in PAIRS.items() for statistic in statistics),
    "topk_mass_old",
    "topk_mass_new",
    "entropy_old",
    "entropy_new",
    "grad_norm_new",
    "noise_logp",  # |difference of log pi_old(a)| between two scorings of OLD in different batch layouts
    "noise_tv",  # exact TV between them
    "noise_kl",  # exact KL between them; all three null where a token was not scored twice
]

SEGMENT_SCHEMA = pa.schema(
    [
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("position", pa.uint32(), nullable=False),
        pa.field("turn", pa.uint32()),
        pa.field("token_id", pa.uint32(), nullable=False),
        pa.field("token", pa.string()),  # the decoded piece
        pa.field("counted", pa.bool_(), nullable=False),  # response_mask = 1; false: every statistic is null
        pa.field("advantage", pa.float64()),
        pa.field("reward", pa.float64()),
        *(pa.field(name, pa.float32()) for name in _float32),
        pa.field("trainer_keep", pa.bool_()),
    ]
)

"""The rollout record as it is kept: one Parquet row per response, in `rollouts/R/S/<piece>.parquet`.

`service.ingest` writes these rows after validation, `service.worker` and the `rollouts` view read them. Lists over
the response all have `response_tokens` entries. Log-probabilities are natural logs; null where not known, never 0.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["ROLLOUT_SCHEMA"]

_logprobs = pa.list_(pa.float64())

ROLLOUT_SCHEMA = pa.schema(
    [
        pa.field("upload", pa.string(), nullable=False),  # id of the upload it came with
        pa.field("step", pa.uint32(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("row_hash", pa.string(), nullable=False),  # sha256 of the record's content, 32 hex digits
        pa.field("prompt_token_ids", pa.list_(pa.uint32()), nullable=False),
        pa.field("response_token_ids", pa.list_(pa.uint32()), nullable=False),
        pa.field("response_mask", pa.list_(pa.bool_()), nullable=False),  # all true where the record has none
        pa.field("rollout_logprobs", _logprobs),
        pa.field("rollout_top_token_ids", pa.list_(pa.list_(pa.uint32()))),  # per position, best first
        pa.field("rollout_top_logprobs", pa.list_(_logprobs)),
        pa.field("old_logprobs", _logprobs),  # the trainer's own
        pa.field("new_logprobs", _logprobs),
        pa.field("reward", pa.float64()),  # the sum where the record has a list
        pa.field("token_rewards", pa.list_(pa.float64())),  # the list, where the record has one
        pa.field("advantage", pa.list_(pa.float64())),  # one per token; a number is repeated
        pa.field("trainer_keep", pa.list_(pa.bool_())),
        pa.field("policy_version", pa.list_(pa.int64())),  # one per token; a number is repeated
        pa.field("turn", pa.list_(pa.uint32())),
        pa.field("minibatch", pa.list_(pa.int64())),  # one per token; a number is repeated
        pa.field("prompt_text", pa.string()),
        pa.field("response_text", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("logprobs_approximate", pa.bool_()),
        pa.field("meta", pa.string()),  # JSON object; unknown fields are kept here
        pa.field("prompt_tokens", pa.uint32(), nullable=False),
        pa.field("response_tokens", pa.uint32(), nullable=False),
        pa.field("counted_tokens", pa.uint32(), nullable=False),  # response_mask = 1
    ]
)

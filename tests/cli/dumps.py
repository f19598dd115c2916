"""Dumps by hand in the layouts of slime and miles: two prompts, two responses each, one of them cut.

The layouts are those of slime 624b824a8 (`observability/rollout_data_utils.py`, `utils/types.py`) and miles 31f1ca961
(`ray/rollout/debug_data.py`, `backends/training_utils/debug_dump.py`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from service.cli.main import app

Fields = dict[str, Any]


def sample(**fields: Any) -> Fields:
    """`Sample.to_dict()`: every attribute is there, most with their defaults."""
    return {
        "group_index": None,
        "index": None,
        "rollout_id": None,
        "prompt": "",
        "tokens": [],
        "multimodal_inputs": None,
        "multimodal_train_inputs": None,
        "multimodal_train_input_id": None,
        "apply_chat_template_kwargs": {},
        "response": "",
        "response_length": 0,
        "label": None,
        "reward": None,
        "loss_mask": None,
        "weight_versions": [],
        "rollout_log_probs": None,
        "rollout_top_p_token_ids": None,
        "rollout_top_p_token_offsets": None,
        "rollout_routed_experts": None,
        "remove_sample": False,
        "teacher_log_probs": None,
        "status": "pending",
        "metadata": {},
        "generate_function_path": None,
        "custom_rm_path": None,
        "train_metadata": None,
        "session_id": None,
        "non_generation_time": 0.0,
        "spec_info": {"spec_accept_token_num": 0, "spec_draft_token_num": 0},
        "prefix_cache_info": {"cached_tokens": 0, "total_prompt_tokens": 0},
        **fields,
    }


def samples() -> list[Fields]:
    """Samples 40 … 43 of groups 20 and 21: one calls a tool, one is cut, one is removed from the loss."""
    return [
        sample(
            group_index=20,
            index=40,
            prompt="2+2?",
            tokens=[5, 9, 11, 12, 30, 31, 13],
            response="call 4 four",
            response_length=5,
            label="4",
            reward=1.0,
            loss_mask=[1, 1, 0, 0, 1],
            weight_versions=["7", "7"],
            rollout_log_probs=[-0.5, -0.25, 0.0, 0.0, -1.5],
            status="completed",
            metadata={"source_name": "math"},
            session_id="s-40",
            train_metadata={"weight": 2},
            rollout_top_p_token_ids=[11, 12, 4, 30, 31, 13],
            rollout_top_p_token_offsets=[0, 1, 3, 4, 5, 6],
            rollout_routed_experts=[[0]] * 5,
            teacher_log_probs=[-1.0] * 5,
        ),
        sample(
            group_index=20,
            index=41,
            prompt="2+2?",
            tokens=[5, 9, 11, 2],
            response="5",
            response_length=2,
            reward=0.0,
            weight_versions=["6", "7"],
            rollout_log_probs=[-0.5, -0.75],
            status="truncated",
        ),
        sample(
            group_index=21,
            index=42,
            prompt=[{"role": "user", "content": "3+3?"}],
            tokens=[6, 10, 14],
            response="6",
            response_length=1,
            reward=1.0,
            weight_versions=["7"],
            rollout_log_probs=[-0.125],
            status="completed",
        ),
        sample(
            group_index=21,
            index=43,
            prompt="3+3?",
            tokens=[6, 10, 15, 2],
            response="7",
            response_length=2,
            reward=0.0,
            weight_versions=["default"],
            rollout_log_probs=[-2.0, -3.0],
            remove_sample=True,
            status="failed",
        ),
    ]


def slime_rollout(path: Path, rollout_id: int = 7, rows: list[Fields] | None = None) -> Path:
    """`save_debug_rollout_data`."""
    torch.save({"rollout_id": rollout_id, "samples": samples() if rows is None else rows}, path)
    return path


def miles_rollout(path: Path, rollout_id: int = 7, rows: list[Fields] | None = None) -> Path:
    """miles' `save_debug_rollout_data`, which has `metadata` beside slime's two."""
    extra = {"rollout_indexer_topk": None, "opd_reverse_kl": None, "adapter": None, "routing_key": None}
    rows = [{**row, **extra} for row in (samples() if rows is None else rows)]
    torch.save({"rollout_id": rollout_id, "metadata": {}, "samples": rows}, path)
    return path


def miles_loss(path: Path, rank: int, call: int, places: list[int], **changes: Any) -> Path:
    """`maybe_dump_policy_loss_debug` of one micro-batch of these samples: `index` is the row in it."""
    logged = []
    for index, place in enumerate(places):
        row = samples()[place]
        length = row["response_length"]
        mask = row["loss_mask"] or [0 if row["remove_sample"] else 1] * length
        rollout = torch.tensor(row["rollout_log_probs"])
        one = {
            "index": index,
            "total_length": len(row["tokens"]),
            "response_length": length,
            "train_log_probs": rollout - 0.25,
            "old_log_probs": rollout - 0.125,
            "advantages": torch.full((length,), 0.5 - place % 2),
            "local_loss_mask": torch.tensor(mask, dtype=torch.int).float(),
            "rollout_log_probs": rollout,
            "train_rollout_abs_diff": torch.full((length,), 0.25),
            **changes,
        }
        logged.append({name: value for name, value in one.items() if value is not None})
    content = {
        "rank": rank,
        "call": call,
        "samples": logged,
        "ppo_kl": torch.zeros(3),
        "pg_loss": torch.zeros(3),
        "finite": {"ppo_kl": True, "pg_loss": True, "train_log_probs": True, "old_log_probs": True, "advantages": True},
    }
    torch.save(content, path)
    return path


def convert(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


class Bomb:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)

"""Files of known trainers that no import can use, or not as they are: what each is, and what to hand over instead."""

from __future__ import annotations

__all__ = ["CONVERTED", "what_it_is"]

CONVERTED = ("slime", "miles")  # formats of several files, which are joined where they are

_INDEX = "an index of prime-rl's traces. Upload the stream, or `dppo convert prime-rl` it with its annotations."
_FOREIGN: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"input_prompt", "output_response", "score", "env_class"}),
        (
            "SkyRL's dumped_evals: text of evaluations, which are not trained on. Hand over dumped_data/"
            "global_step_N_training_input.pkl: `dppo convert skyrl` says how."
        ),
    ),
    (
        frozenset({"trajectory_data", "messages", "global_step"}),
        (
            "ROLL's agentic trajectories: messages of several turns, which do not say which tokens the policy wrote. "
            "Hand over the rollout mock's dump: `dppo convert roll` says how."
        ),
    ),
    (
        frozenset({"run_name", "git_commit", "model_name", "timestamp"}),
        "open-instruct's metadata of the run. Upload its rollouts: {run}_rollouts_*.jsonl.",
    ),
    (
        frozenset({"example_id", "prompt", "completion", "reward"}),
        (
            "verifiers' results without a trajectory, which is where the token ids are. Save them with "
            'state_columns=["trajectory"].'
        ),
    ),
    (
        frozenset({"sample_index", "response_length", "total_length", "tokens"}),
        (
            "miles' dashboard columns. `dppo convert miles rollout_N.parquet -o FILE.jsonl.gz`, with the files of "
            "policy_loss_debug beside it if there are any, makes the file to upload."
        ),
    ),
    (
        frozenset({"trace_id", "branches"}),
        (
            "prime-rl's annotations of traces, without their tokens. `dppo convert prime-rl stream.jsonl "
            "annotations/*.jsonl -o FILE.jsonl.gz` makes the file to upload."
        ),
    ),
    (frozenset({"trace_id", "chunk", "offset"}), _INDEX),
    (frozenset({"trace_ids", "chunk", "offset"}), _INDEX),
)


def what_it_is(names: frozenset[str]) -> str | None:
    """What a file is whose first record has these fields, and what to do; None where that is not known."""
    return next((words for needed, words in _FOREIGN if needed <= names), None)

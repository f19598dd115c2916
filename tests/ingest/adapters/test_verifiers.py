"""verifiers v1 episodes, as verifiers 0.4.0 wrote them, and what prime-rl's can hold besides.

tests/data/formats/verifiers-0.4.0-{episodes,trace}.jsonl are of write_verifiers.py, beside them: a trace that forks,
one that was compacted, a judge's, one while the policy changed, one without tokens, one of an evaluation; one episode
has none. The other tests are of hand-made episodes: `is_masked` as prime-rl#3525 adds it, and what is wrong with one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.ingest.adapters.common import prompt_hash
from tests.ingest.files import Importing

FORMATS = Path(__file__).parents[2] / "data" / "formats"
PYTHON = {"type": "function", "name": "python", "description": "", "parameters": {"type": "object"}}
TASK = {
    "type": "Reverse",
    "data": {
        "idx": 7,
        "prompt": "abc",
        "network_allow": ["*"],
        "artifact_max_bytes": 32 << 20,
        **{name: [] for name in ("skills", "network_block", "artifacts")},
        **{name: {} for name in ("timeout", "resources")},
    },
    "key": "k7",
}


def node(ids: list[int], parent: int | None = None, sampled: int = 0, **fields: Any) -> dict[str, Any]:
    """A message whose last `sampled` tokens came from the model."""
    role = "assistant" if sampled else "user"
    return {
        "parent": parent,
        "message": {"role": role, "content": "…"},
        "sampled": bool(sampled),
        "timestamp": 1.0,
        "token_ids": ids,
        "mask": [False] * (len(ids) - sampled) + [True] * sampled,
        "is_content": [],
        "reference_logprobs": [-7.0] * sampled,
        "loss_weights": [1.0] * sampled,
        "mismatch_kl": [0.5] * sampled,
        **fields,
    }


def nodes() -> list[dict[str, Any]]:
    """Two turns with a tool between them: 10 11 | 20→21 22 | 30 31 | 40→41."""
    first = {"logprobs": [-0.5, -0.25], "advantages": [0.5, -0.5], "trainer_logprobs": [-0.6, -0.3]}
    last = {"logprobs": [-2.0], "advantages": [0.25], "trainer_logprobs": [-1.5]}
    return [
        node([10, 11], logprobs=[]),
        node([20, 21, 22], 0, 2, **first, entropies=[0.7, 0.8], is_masked=[0, 1]),
        node([30, 31], 1, logprobs=[]),
        node([40, 41], 2, 1, **last, entropies=[0.9], is_masked=[-1]),
    ]


def trace(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "id": "t1",
        "verifiers": {"version": "0.2", "commit": "a60a606"},
        "task": {"type": "Reverse", "data": {"prompt": "abc"}, "key": "k1"},
        "agent": {"config": {"model": "m"}, "name": "solver", "trainable": True},
        "tools": [{"name": "python"}],
        "timing": {"start_time": 1.0},
        "nodes": nodes(),
        "calls": [{"node": 1, "finish_reason": "tool_calls"}, {"node": 3, "finish_reason": "stop"}],
        "rewards": {"right": {"score": 1.0, "weight": 0.5}, "short": {"score": 0.25, "weight": 1.0}},
        "metrics": {"turns": 2.0},
        "info": {"seed": 3},
        "is_completed": True,
        "ok": True,
        "stop_condition": "done",
        "errors": [],
        **changes,
    }


def episode(*traces: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With `exclude_none`, as the record is written."""
    whole = {
        "id": "e1",
        "env": {"id": "reverse", "name": "rev"},
        "task": {"type": "Reverse", "data": {"prompt": "abc"}, "key": "k1"},
        "group": {"id": "g7"},
        "run": {
            "type": "train",
            "id": "run-1",
            "name": "first",
            "work": {"type": "train", "step": 6, "policy": {"start": 5, "end": 5}},
        },
        "ok": True,
        "errors": [],
        "traces": list(traces or [trace()]),
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def test_episodes_as_verifiers_writes_them(importing: Importing) -> None:
    manifest = importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    assert (manifest["format"], manifest["rollouts"]) == ("verifiers", 5)
    rows = importing.rows()
    assert [row["sample_id"] for row in rows] == ["t1/0", "t1/1", "t2/1", "t2/2", "t4"]
    assert {row["step"] for row in rows} == {6}
    assert [row["group_id"] for row in rows[:4]] == ["g7"] * 4
    assert rows[4]["group_id"] == prompt_hash([10, 20])  # its episode is of no group
    assert [row["reward"] for row in rows] == [0.75, 0.75, 0.0, 0.0, None]  # t1: 1.0·0.5 + 0.25·1.0, and one not given
    assert [row["finish_reason"] for row in rows] == ["stop", "length", "stop", "stop", "length"]
    assert [row["policy_version"] for row in rows] == [[5] * 6, [5], [5] * 3, [5], None]
    for row in rows:
        assert {row[name] for name in ("old_logprobs", "trainer_keep", "prompt_text", "response_text")} == {None}


def test_two_turns_and_a_fork(importing: Importing) -> None:
    """A sampled message that branches share is trained in the first that holds it (prime-rl's
    `iter_trainable_branches`); records round to 4 decimals.
    """
    importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    first, second = importing.rows()[:2]
    assert first["prompt_token_ids"] == [10, 11, 20]
    assert first["response_token_ids"] == [21, 22, 30, 31, 40, 41]
    assert first["response_mask"] == [True, True, False, False, False, True]
    assert first["turn"] == [0, 0, 1, 1, 1, 1]  # what the tool said leads up to the second turn
    assert first["rollout_logprobs"] == [-0.5, -0.1235, None, None, None, -2.0]
    assert first["new_logprobs"] == [-0.625, -0.125, None, None, None, -1.5]
    assert first["advantage"] == [0.5, -0.5, None, None, None, 0.25]
    assert second["prompt_token_ids"] == [10, 11, 20, 21, 22, 50, 60]
    assert (second["response_token_ids"], second["response_mask"], second["turn"]) == ([61], [True], [1])
    assert (second["rollout_logprobs"], second["new_logprobs"], second["advantage"]) == ([0.0], None, [0.0])


def test_an_attempt_to_compact_that_nothing_goes_on_from(importing: Importing) -> None:
    """`Branch.trainable`: t2/0 is left out, and what it shares with t2/1 is trained there."""
    importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    attempt, resumed = importing.rows()[2:4]
    assert (attempt["prompt_token_ids"], attempt["response_token_ids"]) == ([10, 20], [21, 60, 61])
    assert attempt["response_mask"] == [True, False, True]
    assert attempt["turn"] == [0, 1, 1]
    assert attempt["rollout_logprobs"] == [-0.5, None, -0.25]
    assert attempt["advantage"] is None  # no credit was assigned, which is not 0
    assert (resumed["prompt_token_ids"], resumed["response_token_ids"]) == ([70, 71, 72], [73])
    assert resumed["rollout_logprobs"] == [-0.75]
    links = [json.loads(row["meta"])["nodes"][-1]["semantic_parents"] for row in (attempt, resumed)]
    assert links == [[{"node": 1, "type": "compaction_attempt"}], [{"node": 5, "type": "compaction"}]]


def test_what_is_left_out_of_episodes(importing: Importing) -> None:
    manifest = importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    left = [warning for warning in manifest["warnings"] if warning["code"] == "left_out"]
    assert {warning["message"].split(": ", 1)[1]: warning["examples"][0]["line"] for warning in left} == {
        "it attempts to compact a context and nothing goes on from it: it is not trained on.": 1,
        "its agent is not trained: the tokens are not of this run's policy.": 1,
        "no token of it was sampled, or the client that sampled kept no token ids.": 2,
        "it is work of an evaluation, which is not trained on.": 3,
        "the episode has no trace; it failed before there was one.": 4,
    }
    assert {warning["count"] for warning in left} == {1}


def test_meta(importing: Importing) -> None:
    """What is of the trace is told once, with its first branch."""
    importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    first, second = (json.loads(row["meta"]) for row in importing.rows()[:2])
    shared = {
        "env": {"id": "reverse", "name": "rev"},
        "task": TASK,
        "run_id": "run-1",
        "work": "train",
        "policy": {"start": 5, "end": 5},
        "agent": "solver",
        "stop_condition": "agent_completed",
        "run": {"type": "train", "name": "first"},
        # its three traces: input 8 + 7 + 2, output 6 + 5 + 1 (over every branch), together 12 + 11 + 3 (each call once)
        "episode": {
            "id": "e1",
            "ok": True,
            "is_timeout": False,
            "num_input_tokens": 17,
            "num_output_tokens": 12,
            "num_total_tokens": 26,
        },
    }
    call = {"type": "function", "id": "c", "name": "python", "arguments": "{}"}
    said = [
        {"role": "user", "content": "abc?"},
        {"role": "assistant", "content": "let me see", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "cba"},
        {"role": "assistant", "content": "cba"},
    ]
    nodes = [{"message": message, "timestamp": place} for place, message in enumerate(said)]
    nodes[0]["tools"] = [PYTHON]
    span = {"start": 0, "end": 0}
    assert first == shared | {
        "nodes": nodes,
        "entropy": [0.75, 0.25, None, None, None, 0.875],
        "version": 1,
        "verifiers": {"version": "0.4.0"},
        "agent_config": {
            "config": {
                "model": "m",
                "network_notice": True,
                "retries": {"max_retries": 0, "rules": []},
                "runtime": {"type": "subprocess"},
                "timeout": {},
            }
        },
        "tools": [PYTHON],
        "timing": {
            **dict.fromkeys(("boot", "setup", "finalize", "scoring"), span),
            "agent": {**span, "model": {"duration": 0}, "harness": {"duration": 0}},
            "start": 1,
        },
        "calls": [_call(1, "tool_calls", 3, 2), _call(3, "stop", 8, 1), _call(5, "length", 7, 1)],
        "rewards": {"right": {"score": 1, "weight": 0.5}, "short": {"score": 0.25, "weight": 1}},
        "metrics": {"turns": 3},
        "info": {"seed": 3},
        "is_completed": True,
        "is_timeout": False,
        "ok": True,
        "num_input_tokens": 8,
        "num_output_tokens": 6,
        "num_total_tokens": 12,
    }
    more = [{"role": "user", "content": "no tool"}, {"role": "assistant", "content": "bca"}]
    assert second == shared | {"nodes": [{"message": said, "timestamp": 4 + place} for place, said in enumerate(more)]}


def _call(node: int, finish: str, prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"node": node, "model": "m", "finish_reason": finish, "usage": usage, "time": {"start": 0, "end": 0}}


def test_a_policy_that_changed_meanwhile(importing: Importing) -> None:
    """Which token is of which version is not in the file."""
    manifest = importing(FORMATS / "verifiers-0.4.0-episodes.jsonl")
    row = importing.rows()[4]
    assert row["policy_version"] is None
    (found,) = [one for one in manifest["notes"] if one["code"] == "several_policy_versions"]
    assert found["count"] == 1
    assert "(up to 2 apart)" in found["message"]
    assert json.loads(row["meta"])["policy"] == {"start": 4, "end": 6}


def test_a_trace_a_line(importing: Importing) -> None:
    """`Trace.to_record()` without its episode, null where an episode leaves out: the step travels beside the file."""
    manifest = importing(FORMATS / "verifiers-0.4.0-trace.jsonl", step=3)
    assert (manifest["format"], manifest["rollouts"]) == ("verifiers", 2)
    first, second = importing.rows()
    assert (first["sample_id"], first["step"], first["reward"], first["policy_version"]) == ("t1/0", 3, 0.75, None)
    assert first["response_token_ids"] == [21, 22, 30, 31, 40, 41]
    assert first["rollout_logprobs"] == [-0.5, -0.1235, None, None, None, -2.0]
    assert first["new_logprobs"] == [-0.625, -0.125, None, None, None, -1.5]
    assert first["advantage"] == [0.5, -0.5, None, None, None, 0.25]
    assert (second["rollout_logprobs"], second["new_logprobs"], second["advantage"]) == ([0.0], None, [0.0])
    assert first["group_id"] == second["group_id"] == prompt_hash([10, 11, 20])
    assert not {"env", "episode", "run", "run_id", "work"} & json.loads(first["meta"]).keys()


def test_a_branch_that_trains_nothing_of_its_own(importing: Importing) -> None:
    """A leaf of tool output alone, after messages that another branch counts."""
    importing([episode(trace(nodes=[*nodes(), node([60], 1)]))])
    (row,) = importing.rows()
    assert row["response_token_ids"] == [21, 22, 30, 31, 40, 41]


def test_figures_that_are_not_there(importing: Importing) -> None:
    """Nothing scored, no credit assigned, no reward given: null, not 0."""
    bare = [node([10, 11]), node([20, 21], 0, 1, logprobs=[])]
    importing([episode(trace(nodes=bare, rewards={"right": None}, calls=[]), group=None)])
    (row,) = importing.rows()
    absent = ("rollout_logprobs", "advantage", "new_logprobs", "trainer_keep", "reward", "finish_reason")
    assert {row[name] for name in absent} == {None}
    assert row["group_id"].startswith("prompt-")


def test_a_node_that_was_not_scored_beside_one_that_was(importing: Importing) -> None:
    some = nodes()
    del some[1]["advantages"]
    importing([episode(trace(nodes=some))])
    assert importing.rows()[0]["advantage"] == [None, None, None, None, None, 0.25]


def test_a_figure_that_lies_over_all_tokens_of_its_node(importing: Importing) -> None:
    """prime-rl#3525 aligns `is_masked` with the packed input, −1 where it does not apply."""
    some = nodes()
    some[1]["is_masked"] = [-1, 0, 1]
    some[3]["is_masked"] = [-1, 1]
    importing([episode(trace(nodes=some))])
    assert importing.rows()[0]["trainer_keep"] == [True, False, None, None, None, False]


def test_rewards_as_numbers(importing: Importing) -> None:
    importing([episode(trace(rewards={"right": 0.5, "short": -0.25}))])
    assert importing.rows()[0]["reward"] == 0.25


def _with(place: int, **changes: Any) -> dict[str, Any]:
    changed = nodes()
    changed[place] |= changes
    return {"nodes": changed}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (_with(1, logprobs=[-0.5]), "nodes[1].logprobs", "has 1 entry, but the node has 2 entries of mask"),
        (_with(1, mask=[False, True]), "nodes[1].mask", "has 2 entries, expected 3 (one short: shifted?)"),
        (_with(1, logprobs=[-0.5, 1.0]), "nodes[1].logprobs[1]", "1.0 is a positive log-probability"),
        (_with(3, trainer_logprobs=[0.5]), "nodes[3].trainer_logprobs[0]", "0.5 is a positive log-probability"),
        (_with(2, token_ids=[30, "x"]), "nodes[2].token_ids[1]", "'x' is not a token id"),
        (_with(1, parent=1), "nodes[1].parent", "1 is no node before this one"),
        (_with(1, parent=2), "nodes[1].parent", "2 is no node before this one"),
        (_with(2, parent=-1), "nodes[2].parent", "-1 is no node before this one"),
        (_with(0, mask=[True, False]), "nodes[0].mask[0]", "is true on a first token"),
        (_with(1, semantic_parents=[{"node": "0"}]), "nodes[1].semantic_parents[0].node", "'0' is not an integer"),
        (_with(1, is_masked=[0, 3]), "nodes[1].is_masked[1]", "3 is not 0 or 1"),
        ({"nodes": {"0": 1}}, "nodes", "expected a list, found an object"),
        ({"nodes": [1]}, "nodes[0]", "expected an object, found a number"),
        ({"rewards": {"right": {"score": "x"}}}, "rewards.right.score", "'x' is not a number"),
        ({"id": None}, "id", "is required and missing"),
        ({"agent": "solver"}, "agent", "expected an object, found a string"),
    ],
)
def test_what_is_refused(importing: Importing, changes: dict[str, Any], field: str, message: str) -> None:
    errors = importing.errors([episode(), episode(trace(), trace(**({"id": "t2"} | changes)))])
    assert [(line, name) for line, name, _ in errors] == [(2, f"traces[1].{field}")]
    assert message in errors[0][2]


def test_the_run_of_an_episode(importing: Importing) -> None:
    work = {"type": "train", "step": -1}
    errors = importing.errors([episode(run={"type": "train", "id": "r", "work": work}, traces=7)])
    assert [(line, field) for line, field, _ in errors] == [(1, "run.work.step"), (1, "traces")]


def test_a_graph_with_more_branches_than_could_be_meant(importing: Importing) -> None:
    """Branches share nodes: a small file can name an endless number of tokens."""
    trunk = node(list(range(1, 10001)), None, 9999)
    leaves = [node([1, 2], 0, 1) for _ in range(1000)]
    ((line, field, message),) = importing.errors([episode(trace(nodes=[trunk, *leaves]))])
    assert (line, field) == (1, "traces[0].nodes")
    assert "branches of more than 8388608 tokens together" in message

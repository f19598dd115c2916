"""verifiers v1 episodes, as `Episode.to_record()` gives them (verifiers a60a606ec, `v1/episode.py`, `v1/trace.py`,
`v1/graph.py`) and prime-rl's file monitor writes them; `trainer_logprobs` and `is_masked` as verifiers#2481 and
prime-rl#3525 add them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ingest.files import Importing

ROLES = ("user", "assistant", "user", "assistant")


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


def test_every_field(importing: Importing) -> None:
    manifest = importing([episode()])
    (row,) = importing.rows()
    assert (manifest["format"], manifest["warnings"]) == ("verifiers", [])
    assert (row["step"], row["sample_id"], row["group_id"]) == (6, "t1", "g7")
    assert row["prompt_token_ids"] == [10, 11, 20]
    assert row["response_token_ids"] == [21, 22, 30, 31, 40, 41]
    assert row["response_mask"] == [True, True, False, False, False, True]
    assert row["turn"] == [0, 0, 1, 1, 1, 1]  # what the tool said leads up to the second turn
    assert row["rollout_logprobs"] == [-0.5, -0.25, None, None, None, -2.0]
    assert row["new_logprobs"] == [-0.6, -0.3, None, None, None, -1.5]
    assert row["advantage"] == [0.5, -0.5, None, None, None, 0.25]
    assert row["trainer_keep"] == [True, False, None, None, None, None]  # −1: does not apply
    assert row["reward"] == 0.75  # 1.0·0.5 + 0.25·1.0
    assert row["policy_version"] == [5] * 6
    assert row["finish_reason"] == "stop"
    assert row["old_logprobs"] is None
    assert json.loads(row["meta"]) == {
        "env": {"id": "reverse", "name": "rev"},
        "task": {"type": "Reverse", "data": {"prompt": "abc"}, "key": "k1"},
        "run_id": "run-1",
        "work": "train",
        "policy": {"start": 5, "end": 5},
        "agent": "solver",
        "stop_condition": "done",
        "entropy": [0.7, 0.8, None, None, None, 0.9],
        "run": {"type": "train", "name": "first"},
        "episode": {"id": "e1", "ok": True},
        "version": 1,
        "verifiers": {"version": "0.2", "commit": "a60a606"},
        "agent_config": {"config": {"model": "m"}},
        "tools": [{"name": "python"}],
        "timing": {"start_time": 1},
        "calls": [{"node": 1, "finish_reason": "tool_calls"}, {"node": 3, "finish_reason": "stop"}],
        "rewards": {"right": {"score": 1, "weight": 0.5}, "short": {"score": 0.25, "weight": 1}},
        "metrics": {"turns": 2},
        "info": {"seed": 3},
        "is_completed": True,
        "ok": True,
        "nodes": [{"message": {"role": role, "content": "…"}, "timestamp": 1} for role in ROLES],
    }


def test_a_policy_that_changed_meanwhile(importing: Importing) -> None:
    """Which token is of which version is not in the file."""
    work = {"type": "train", "step": 6, "policy": {"start": 4, "end": 5}}
    manifest = importing([episode(run={"type": "train", "id": "r", "work": work})])
    (row,) = importing.rows()
    assert row["policy_version"] is None
    (found,) = [one for one in manifest["notes"] if one["code"] == "several_policy_versions"]
    assert found["count"] == 1
    assert "(up to 1 apart)" in found["message"]
    assert json.loads(row["meta"])["policy"] == {"start": 4, "end": 5}


def test_branches_share_what_was_sampled(importing: Importing) -> None:
    """`iter_trainable_branches`: a shared sampled node is trained in the first branch that holds it."""
    forked = [*nodes(), node([50, 51, 52], 1, 2, logprobs=[-0.1, -0.2])]
    importing([episode(trace(nodes=forked))])
    first, second = importing.rows()
    assert (first["sample_id"], second["sample_id"]) == ("t1/0", "t1/1")
    assert first["response_token_ids"] == [21, 22, 30, 31, 40, 41]
    assert second["prompt_token_ids"] == [10, 11, 20, 21, 22, 50]
    assert second["response_token_ids"] == [51, 52]
    assert second["rollout_logprobs"] == [-0.1, -0.2]
    assert second["turn"] == [1, 1]
    assert first["group_id"] == second["group_id"] == "g7"
    # what both hold is told once
    assert [len(json.loads(row["meta"])["nodes"]) for row in (first, second)] == [4, 1]
    assert ["tools" in json.loads(row["meta"]) for row in (first, second)] == [True, False]


def test_a_branch_that_trains_nothing_of_its_own(importing: Importing) -> None:
    """A leaf of tool output alone, after messages that another branch counts."""
    importing([episode(trace(nodes=[*nodes(), node([60], 1)]))])
    (row,) = importing.rows()
    assert row["response_token_ids"] == [21, 22, 30, 31, 40, 41]


def test_several_traces(importing: Importing) -> None:
    judge = trace(id="t2", agent={"config": {}, "name": "judge", "trainable": False})
    empty = trace(id="t3", nodes=[node([])])
    manifest = importing([episode(trace(), judge, empty), episode(id="e2", traces=[], ok=False)])
    assert [row["sample_id"] for row in importing.rows()] == ["t1"]
    told = {warning["message"]: warning["examples"][0]["line"] for warning in manifest["warnings"]}
    assert {message.split(": ")[1][:24]: line for message, line in told.items()} == {
        "its agent is not trained": 1,
        "no token of it was sampl": 1,
        "the episode has no trace": 2,
    }


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


def test_a_trace_a_line(importing: Importing) -> None:
    """`Trace.to_record()` without its episode: the step travels beside the file."""
    manifest = importing([trace()], step=3)
    (row,) = importing.rows()
    assert (manifest["format"], row["step"], row["reward"], row["policy_version"]) == ("verifiers", 3, 0.75, None)


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

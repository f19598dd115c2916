"""Writes the fixtures of verifiers' episodes with verifiers 0.4.0's own code.

    python3.11 -m venv venv
    venv/bin/pip install verifiers==0.4.0
    venv/bin/python tests/data/formats/write_verifiers.py

It writes, from the same EPISODES,

    verifiers-0.4.0-episodes.jsonl  traces.jsonl, by `write_episode` (verifiers/v1/utils/trace_store.py)
    verifiers-0.4.0-trace.jsonl     `Trace.to_record()` of the first trace, a line

`write_episode` gives what `Episode.to_record()` gives, which prime-rl's file monitor writes: that is asserted here. The
graphs are made as a rollout makes them, turn by turn: `prepare_turn` and `PendingTurn.commit`, and `add_semantic_edges`
for the edges that a harness declares. Stand-ins: the responses of an inference server, which are TurnTokens chosen by
hand, and the figures that a trainer assigns to the nodes (`advantages`, `trainer_logprobs`, ...). Ids and times are set
by hand, to be the same in each run.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.configs.agent import WireAgentConfig
from verifiers.v1.graph import prepare_turn
from verifiers.v1.utils.trace_store import TRACES_FILE, write_episode

HERE = Path(__file__).parent
PYTHON = vf.Tool(name="python", parameters={"type": "object"})


def user(text: str) -> Any:
    return vf.UserMessage(content=text)


def trace(name: str, agent: str = "solver", trainable: bool = True) -> Any:
    config = WireAgentConfig(model="m", runtime=vf.SubprocessConfig())
    return vf.Trace(
        id=name,
        task=task(),
        agent=vf.AgentInfo(config=config, name=agent, trainable=trainable),
        timing=vf.Timing(start=1.0),
    )


def task() -> Any:
    return vf.TraceTask(type="Reverse", data=vf.WireTaskData(idx=7, prompt="abc"), key="k7")


def turn(
    trace: Any,
    prompt: list[Any],
    answer: Any,
    ids: list[list[int]],
    sampled: dict[int, float],
    finish: str = "stop",
    request: str | None = None,
) -> Any:
    """A model call: `ids` are those of each message of the prompt and, last, the scaffold before the answer's own ids,
    which are the keys of `sampled`; its values are their log-probs. Returns the answer's node."""
    whole = [token for message in ids for token in message]
    ends = [sum(map(len, ids[: place + 1])) for place in range(len(prompt))]
    spans = list(zip([0, *ends], ends, strict=False))
    tokens = vf.TurnTokens(
        prompt_ids=whole,
        completion_ids=list(sampled),
        completion_logprobs=list(sampled.values()),
        message_spans=spans,
        is_content=[True] * ends[-1] + [False] * len(ids[-1]),
    )
    response = vf.Response(id="r", created=1, model="m", message=answer, finish_reason=finish, tokens=tokens)
    place = prepare_turn(trace, prompt, [PYTHON]).commit(response)
    usage = vf.Usage(prompt_tokens=len(whole), completion_tokens=len(sampled))
    acp = vf.ACPInfo(request_id=request) if request else None
    trace.calls.append(vf.ModelCall(node=place, model="m", finish_reason=finish, usage=usage, acp=acp))
    for index, node in enumerate(trace.nodes):
        node.timestamp = float(index)
    return trace.nodes[place]


def completed(trace: Any) -> Any:
    trace.ok = True
    trace.stop("agent_completed")
    return trace


def forked() -> Any:
    """10 11 | 20→21 22 | tool's 30 31 | 40→41, and from the first answer too | 50 | 60→61."""
    made = trace("t1")
    call = vf.ToolCall(id="c", name="python", arguments="{}")
    first = vf.AssistantMessage(content="let me see", tool_calls=[call])
    asked = [[10, 11], [20]]
    node = turn(made, [user("abc?")], first, asked, {21: -0.5, 22: -0.123456}, finish="tool_calls")
    node.advantages, node.trainer_logprobs, node.entropies = [0.5, -0.5], [-0.625, -0.125], [0.75, 0.25]
    node.reference_logprobs, node.loss_weights = [-7.0, -7.0], {"rl": [0.0, 1.0, 1.0]}

    seen = [user("abc?"), first]
    before = [[10, 11], [20, 21, 22]]
    result = vf.ToolMessage(tool_call_id="c", content="cba")
    node = turn(made, [*seen, result], vf.AssistantMessage(content="cba"), [*before, [30, 31], [40]], {41: -2.0})
    node.advantages, node.trainer_logprobs, node.entropies = [0.25], [-1.5], [0.875]

    other = vf.AssistantMessage(content="bca")
    node = turn(made, [*seen, user("no tool")], other, [*before, [50], [60]], {61: 0.0}, finish="length")
    node.advantages = [0.0]  # credit of zero; the trainer has not recomputed this one

    made.record_reward("right", 1.0, weight=0.5)
    made.record_reward("short", 0.25)
    made.rewards["judged"] = None  # as where scoring did not run
    made.record_metric("turns", 3)
    made.info["seed"] = 3
    return completed(made)


def compacted() -> Any:
    """10 | 20→21, and two attempts to compact it, | 50→51 | and | 60→61 |; the second leads to 70 71 | 72→73."""
    made = trace("t2")
    start, first = user("a long task"), vf.AssistantMessage(content="a long answer")
    turn(made, [start], first, [[10], [20]], {21: -0.5}, request="q1")
    seen, before = [start, first], [[10], [20, 21]]
    compact, again = user("compact it"), user("compact it, shorter")
    summary = vf.AssistantMessage(content="a summary")
    turn(made, [*seen, compact], vf.AssistantMessage(content="…"), [*before, [50], []], {51: -1.0}, "length", "q2")
    turn(made, [*seen, again], summary, [*before, [60], []], {61: -0.25}, request="q3")
    turn(made, [user("a summary")], vf.AssistantMessage(content="done"), [[70, 71], [72]], {73: -0.75}, request="q4")
    edges = [("q1", "q2", "compaction_attempt"), ("q1", "q3", "compaction_attempt"), ("q3", "q4", "compaction")]
    made.add_semantic_edges(
        vf.SemanticEdgeSet(
            edges=[vf.SemanticEdge(source_request_id=a, target_request_id=b, type=c) for a, b, c in edges]
        )
    )
    made.record_reward("right", 0.0)
    return completed(made)


def judge() -> Any:
    made = trace("t3", "judge", trainable=False)
    turn(made, [user("judge it")], vf.AssistantMessage(content="1"), [[80], [81]], {82: -0.5})
    return completed(made)


def plain(name: str, answer: str = "cba", finish: str = "stop") -> Any:
    """10 | 20→21, neither scored nor assigned any credit."""
    made = trace(name)
    turn(made, [user("abc?")], vf.AssistantMessage(content=answer), [[10], [20]], {21: -1.0}, finish=finish)
    return completed(made)


def relayed() -> Any:
    """A client that keeps no token ids."""
    made = trace("t5")
    answer = vf.AssistantMessage(content="cba")
    response = vf.Response(id="r", created=1, model="m", message=answer, finish_reason="stop")
    prepare_turn(made, [user("abc?")]).commit(response)
    for node in made.nodes:
        node.timestamp = 0.0
    return completed(made)


def episode(name: str, *traces: Any, work: Any = None, group: str | None = "g7", ok: bool = True) -> Any:
    run = vf.TrainRunInfo(id="run-1", name="first", work=work) if work else None
    return vf.WireEpisode(
        id=name,
        env=vf.EnvInfo(id="reverse", name="rev"),
        task=task(),
        group=group and vf.GroupInfo(id=group),
        run=run,
        ok=ok,
        traces=list(traces),
    )


def work(start: int, end: int, kind: Any = vf.TrainWorkInfo) -> Any:
    return kind(step=6, policy=vf.PolicySpan(start=start, end=end))


EPISODES = [
    episode("e1", forked(), compacted(), judge(), work=work(5, 5)),
    episode("e2", plain("t4", finish="length"), relayed(), work=work(4, 6), group=None),
    episode("e3", plain("t6"), work=work(5, 5, vf.EvalWorkInfo)),
    episode("e4", work=work(5, 5), ok=False),
]


def main() -> None:
    with TemporaryDirectory() as folder:
        for one in EPISODES:
            write_episode(Path(folder), one)
        written = (Path(folder) / TRACES_FILE).read_text()
    assert [json.loads(line) for line in written.splitlines()] == [one.to_record() for one in EPISODES]
    (HERE / "verifiers-0.4.0-episodes.jsonl").write_text(written)
    (HERE / "verifiers-0.4.0-trace.jsonl").write_text(json.dumps(EPISODES[0].traces[0].to_record()) + "\n")


if __name__ == "__main__":
    main()

"""The TRL hook on the real trainers: a tiny model on the CPU, rollouts whose every number is known by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, RolloutLogger
from service.client.hooks.trl import log_rollouts
from tests.live import Server
from tests.tiny import save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own

WORDS = ["<pad>", "<eos>", *(f"w{number}" for number in range(318))]  # ids 0 … 319, as the tiny checkpoints have
EOS = 1


class Kept(list[tuple[int, list[dict[str, Any]]]]):
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}

    def log(self, step: int, records: list[dict[str, Any]]) -> bool:
        self.append((step, records))
        return True

    def describe(self, **about: Any) -> None:
        self.about.update(about)

    def flush(self, *_: Any) -> bool:
        return True


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def train(tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """Makes a trainer, hooks `logger` on and trains two steps of four responses to two prompts."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    def run(kind: str, logger: Any, rewards: list[Any], rollout_func: Any = None, **options: Any) -> Any:
        import trl

        model = AutoModelForCausalLM.from_pretrained(save_checkpoint(tmp_path / "model", seed=0))
        settings = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "bf16": False,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_generations": 2,
            "max_completion_length": 6,
            "max_steps": 2,
            "shuffle_dataset": False,
            "temperature": 0.8,
            **options,
        }
        trainer = getattr(trl, f"{kind}Trainer")(
            model=model,
            reward_funcs=rewards,
            args=getattr(trl, f"{kind}Config")(**settings),
            train_dataset=Dataset.from_list([{"prompt": "w5 w6"}, {"prompt": "w7 w8 w9"}] * 4),
            processing_class=tokenizer,
            **({"rollout_func": rollout_func} if rollout_func else {}),
        )
        log_rollouts(trainer, logger)
        trainer.train()
        return trainer

    return run


def known_rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Two responses a prompt, of one and of three tokens; the second of the long one came from a tool."""
    ids = {"w5 w6": [7, 8], "w7 w8 w9": [9, 10, 11]}
    long = [at % 2 == 1 for at in range(len(prompts))]
    return {
        "prompt_ids": [ids[prompt] for prompt in prompts],
        "completion_ids": [[20, 21, EOS] if each else [EOS] for each in long],
        "logprobs": [[-0.5, -9.0, -0.125] if each else [-2.0] for each in long],
        "env_mask": [[1, 0, 1] if each else [1] for each in long],
    }


def length(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


async def minus_one(completion_ids: list[list[int]], scale: float, **_: Any) -> list[float | None]:
    return [scale if len(ids) > 1 else None for ids in completion_ids]


def test_every_number_of_a_known_rollout(train: Callable[..., Any]) -> None:
    kept = Kept()
    penalty = functools.partial(minus_one, scale=-1.0)
    train("GRPO", kept, [length, penalty], known_rollouts, scale_rewards="none", reward_weights=[1.0, 0.5])
    assert [step for step, _ in kept] == [0, 1]
    assert kept.about["framework"] == "trl"
    assert kept.about["sampling"]["temperature"] == 0.8
    for _, rows in kept:
        assert len({row["sample_id"] for row in rows}) == len(rows) == 4
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["group_id"], []).append(row)
        assert sorted(tuple(group[0]["prompt_token_ids"]) for group in groups.values()) == [(7, 8), (9, 10, 11)]
        for group in groups.values():
            short, long = sorted(group, key=lambda row: len(row["response_token_ids"]))
            # rewards: 1·1 and 1·3 − ½·1 = 2.5, whose mean is 1.75
            assert short["response_token_ids"] == [EOS]
            assert short["response_mask"] == [1]
            assert short["rollout_logprobs"] == [-2.0]
            assert (short["reward"], short["advantage"]) == (1.0, -0.75)
            assert long["response_token_ids"] == [20, 21, EOS]
            assert long["response_mask"] == [1, 0, 1]
            assert long["rollout_logprobs"] == [-0.5, None, -0.125]
            assert (long["reward"], long["advantage"]) == (2.5, 0.75)


def test_into_a_service(train: Callable[..., Any], server: Server, tmp_path: Path) -> None:
    with RolloutLogger(server.url, "trl", spool=tmp_path / "spool") as logger:
        # each batch of rollouts is learnt from twice: TRL then hands over its own log-probs of before the update
        train("GRPO", logger, [length], known_rollouts, num_iterations=2, scale_rewards="none")
    with Client(server.url) as client:
        rows = client.sql(
            "SELECT step, count(*) AS n, sum(reward) AS reward, sum(counted_tokens) AS counted "
            "FROM rollouts WHERE run = 'trl' GROUP BY step ORDER BY step"
        ).to_pylist()
        assert client.run("trl")["sampling"]["temperature"] == 0.8
    assert rows == [{"step": step, "n": 4, "reward": 8.0, "counted": 6} for step in (0, 1)]
    assert not (list((tmp_path / "spool" / "rejected").iterdir()))


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_transformers_own_generation(train: Callable[..., Any], kind: str) -> None:
    kept = Kept()
    trainer = train(kind, kept, [length])
    assert [(step, len(rows)) for step, rows in kept] == [(0, 4), (1, 4)]
    for _, rows in kept:
        for row in rows:
            assert row["prompt_token_ids"] in ([7, 8], [9, 10, 11])
            assert len(row["response_token_ids"]) == len(row["response_mask"]) == row["reward"] <= 6
            assert 0 not in row["prompt_token_ids"]
            assert "rollout_logprobs" not in row
        assert sum(row["advantage"] for row in rows) == pytest.approx(0, abs=1e-5)
    assert trainer.state.global_step == 2


def test_what_is_learnt_from_twice_is_logged_twice(train: Callable[..., Any]) -> None:
    kept = Kept()
    train("GRPO", kept, [length], known_rollouts, num_iterations=2)
    (first, before), (second, after) = kept
    assert (first, second) == (0, 1)

    def logged(rows: list[dict[str, Any]]) -> list[Any]:
        return sorted((row["group_id"], row["response_token_ids"], row["old_logprobs"], row["reward"]) for row in rows)

    assert logged(before) == logged(after)  # of before the first update, both
    for row in before:
        assert [value is None for value in row["old_logprobs"]] == [not kept for kept in row["response_mask"]]
        assert all(value < 0 for value in row["old_logprobs"] if value is not None)


def test_one_completion_of_two_prompts_keeps_its_rewards_apart(train: Callable[..., Any]) -> None:
    kept = Kept()

    def by_prompt(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [float(len(prompt)) for prompt in prompts]

    train("GRPO", kept, [by_prompt], known_rollouts)
    assert {row["reward"] for _, rows in kept for row in rows} == {None}  # not known is not a guess


def test_a_trainer_that_hands_over_something_else_goes_on(
    train: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.hooks.trl.COLUMNS", frozenset())
    kept = Kept()
    assert train("GRPO", kept, [length]).state.global_step == 2
    assert not kept
    assert sum("rollouts are not logged" in record.message for record in caplog.records) == 1

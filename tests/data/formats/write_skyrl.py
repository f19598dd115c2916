r"""Writes the SkyRL fixtures with skyrl 0.3.0's own code.

    python3.12 -m venv venv
    venv/bin/pip install skyrl==0.3.0 --no-deps
    venv/bin/pip install torch==2.13.0 ray==2.56.0 "transformers<=5.8.0" loguru torchdata jaxtyping tensordict \
        omegaconf hydra-core datasets accelerate peft==0.18.1 polars tensorboard func_timeout aiohttp \
        skyrl-gym==0.4.0
    PYTHONPATH=. venv/bin/python tests/data/formats/write_skyrl.py

from the root of the repository (pydantic refuses SkyRL's types on Python 3.11). It writes

    skyrl-0.3.0-batch.jsonl  `RayPPOTrainer.dump_data` (trainer.dump_data_batch) of a step of several turns, through
                             `dppo convert skyrl`'s export
    skyrl-0.3.0-dppo.jsonl   the same with policy_loss_type=dppo, single turns
    skyrl-0.3.0-evals.jsonl  `dump_per_dataset_eval_results` (trainer.dump_eval_results)

The batches are the trainer's: `postprocess_generator_output`, `convert_to_training_input`, `fwd_logprobs_values_reward`
and `compute_advantages_and_returns`, as `RayPPOTrainer.train` calls them up to the dump. Stand-ins: the generator's
output is given, `Dispatch` stands for the workers and returns the log-probs of OLD, and the trainer is made without its
`__init__`, which wants a cluster. The tokenizer is that of tests/ingest/adapters/words.py.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from skyrl.train.config import SkyRLTrainConfig
from skyrl.train.trainer import RayPPOTrainer
from skyrl.train.utils.trainer_utils import dump_per_dataset_eval_results
from transformers import PreTrainedTokenizerFast

from service.cli.exports import SKYRL
from tests.ingest.adapters.words import words

HERE = Path(__file__).parent
STEP = 3
SUM, FOUR = [4, 6, 7, 8, 7, 9, 6, 5, 6], [4, 6, 10, 9, 6, 5, 6]  # user\n2+2?\nassistant\n, user\n4?\nassistant\n
CALL = [7, 8, 7, 11, 10, 2]  # 2+2, a tool's "four", 4<eos>
JUNK = -7.0  # what a forward pass gives for tokens that are no response's

# Prompt, response, loss mask, μ, OLD, reward, whether the trajectory ends here
TURNS = [
    (SUM, [10, 2], [1, 1], [-0.25, -0.5], [-0.375, -0.625], 1.0, True),
    (
        SUM,
        CALL,
        [1, 1, 1, 0, 1, 1],
        [-0.25, -0.5, -0.75, 0.0, -1.0, -1.5],
        [-1.0, -0.5, -0.75, -9.0, -1.25, -2.0],
        0.0,
        True,
    ),
    (FOUR, [11, 2], [1, 1], [-2.0, -0.125], [-1.5, -0.25], 0.0, False),
    ([*FOUR, 11, 2, 6], [12, 10], [1, 1], [-0.5, -3.0], [-0.625, -2.5], 1.0, True),  # its second turn
    (FOUR, [10, 10], [0, 0], [-0.75, -0.75], [-1.75, -1.75], 0.0, True),  # too long: nothing of it counts
]
UIDS = ["sum", "sum", "four", "four", "four"]


class Dispatch:
    """Workers that know OLD: [rows, response_length], right-aligned."""

    def get_lcm_dp_size(self) -> int:
        return 4  # the batch is filled up with copies of its first row

    def forward(self, _: str, batch: Any) -> Any:
        width = batch.metadata["response_length"]
        rows = [[JUNK] * (width - len(turn[4])) + turn[4] for turn in TURNS]
        rows += rows[:1] * (len(batch) - len(rows))
        return SimpleNamespace(loss_fn_outputs=[{"logprobs": row} for row in rows[: len(batch)]])

    def empty_cache(self, *_: str) -> None:
        pass


def trainer(tokenizer: Any, turns: int, loss: str, folder: str) -> RayPPOTrainer:
    made = object.__new__(RayPPOTrainer)
    config = SkyRLTrainConfig()
    config.trainer.export_path, config.trainer.algorithm.policy_loss_type = folder, loss
    config.trainer.train_batch_size = config.trainer.policy_mini_batch_size = len(set(UIDS[:turns]))
    config.trainer.recompute_old_logprobs_per_minibatch = False  # one forward for the whole batch
    config.trainer.algorithm.grpo_norm_by_std = False  # an advantage is reward − mean
    config.generator.n_samples_per_prompt, config.generator.step_wise_trajectories = 2, turns > 2
    made.cfg, made.tokenizer, made.dispatch, made.ref_model = config, tokenizer, Dispatch(), None
    made.all_metrics = {}
    return made


def dump(tokenizer: Any, turns: int, loss: str, name: str) -> None:
    """As `RayPPOTrainer.train` goes on from what the generator gave."""
    prompts, responses, masks, mu, _, rewards, last = map(list, zip(*TURNS[:turns], strict=True))
    output = {
        "prompt_token_ids": prompts,
        "response_ids": responses,
        "rewards": rewards,
        "loss_masks": masks,
        "stop_reasons": None,
        "rollout_logprobs": mu,
        "is_last_step": last if turns > 2 else None,
    }
    with TemporaryDirectory() as folder:
        made = trainer(tokenizer, turns, loss, folder)
        output, uids = made.postprocess_generator_output(output, UIDS[:turns])
        batch = made.convert_to_training_input(output, uids)
        batch = made.compute_advantages_and_returns(made.fwd_logprobs_values_reward(batch))
        batch.pop("rewards")
        batch.metadata.pop("uids")
        batch.metadata.pop("is_last_step", None)
        made.dump_data(batch, file_name=f"global_step_{STEP}_training_input")
        (dumped,) = Path(folder).rglob("*.pkl")
        exec(SKYRL.snippet(str(dumped), str(HERE / name)), {})  # as a user pastes it


def evaluation(tokenizer: Any) -> None:
    output = {"prompt_token_ids": [SUM], "response_ids": [[10, 2]], "rewards": [1.0], "stop_reasons": ["stop"]}
    with TemporaryDirectory() as folder:
        dump_per_dataset_eval_results(
            Path(folder),
            tokenizer,
            output,
            ["arithmetic"],
            ["gsm8k"],
            [{"data_source": "arithmetic"}],
            {"eval/all": 1.0},
        )
        (HERE / "skyrl-0.3.0-evals.jsonl").write_bytes((Path(folder) / "arithmetic.jsonl").read_bytes())


if __name__ == "__main__":
    with TemporaryDirectory() as vocabulary:
        loaded = PreTrainedTokenizerFast.from_pretrained(words(Path(vocabulary)))
    dump(loaded, 5, "regular", "skyrl-0.3.0-batch.jsonl")
    dump(loaded, 2, "dppo", "skyrl-0.3.0-dppo.jsonl")
    evaluation(loaded)

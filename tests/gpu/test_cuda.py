"""CUDA against the slow float64 reference. Runs where there is a GPU: `make test-gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dppo_core.reference import reference_token
from dppo_core.two_policy import TwoPolicyScorer, rows_of
from service.worker.batches import Response
from service.worker.pairs import lay_out, score_responses
from service.worker.policies import Checkpoint, PolicyPool
from tests.conftest import Checkpoints
from tests.live import Server
from tests.tiny import VOCAB, records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing was compared"),
]


@pytest.mark.parametrize("vocab", [700, 49_152])
def test_statistics_on_cuda(vocab: int) -> None:
    generator = torch.Generator().manual_seed(0)
    old = 5 * torch.randn(40, vocab, generator=generator)
    new = old + 0.3 * torch.randn(40, vocab, generator=generator)
    sampled = torch.multinomial(torch.softmax(old, 1), 1, generator=generator).squeeze(1)
    scorer = TwoPolicyScorer(vocab, device="cuda", chunk_rows=16)
    stats = scorer.score(rows_of(old.cuda()), rows_of(new.cuda()), sampled.cuda()).map(torch.Tensor.cpu)
    for row in range(0, 40, 8):
        for name, expected in reference_token(old[row], new[row], int(sampled[row])).items():
            assert float(getattr(stats, name)[row]) == pytest.approx(expected, abs=1e-6, rel=1e-6), name


def test_shared_prompts_on_cuda(checkpoints: Checkpoints) -> None:
    rng = np.random.default_rng(0)
    items = [
        Response(row, np.arange(40 + row // 4), rng.integers(0, VOCAB, 1 + 9 * row), np.ones(1 + 9 * row, dtype=bool))
        for row in range(8)
    ]
    found = {}
    for device in ("cpu", "cuda"):
        pool = PolicyPool(torch.device(device), torch.float32)
        old, new = pool.get([Checkpoint(str(path), "") for path in checkpoints.steps[:2]])
        assert old.can_branch
        scorer = TwoPolicyScorer(VOCAB, device=device)
        for share_prompts in (True, False):
            plan = lay_out(items, [old, new], share_prompts=share_prompts)
            assert bool(plan[0].trees) == (share_prompts or device == "cpu")
            found[device, share_prompts] = score_responses(old, new, items, scorer, share_prompts=share_prompts)
    for stats in found.values():
        for name in ("logp_old", "logp_new", "tv_exact"):
            expected = getattr(found["cpu", False], name)
            torch.testing.assert_close(getattr(stats, name), expected, rtol=0, atol=1e-4)


def test_a_worker_on_cuda_agrees_with_the_cpu(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints
) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        data = tmp_path_factory.mktemp(device) / "data"
        env = {"DPPO_CHECKPOINT_ROOTS": str(checkpoints.root), "DPPO_DEVICE": device}
        with Server(data, env=env) as server:
            server.api.post("/runs", json={"run": "r"})
            server.upload("r", records())
            for step in (0, 1):
                server.api.post("/runs/r/checkpoints", json={"step": step, "path": str(checkpoints.steps[step])})
            analysis = server.analyze("r", dtype="float32")["result"]["analysis"]
            rows = server.api.get(f"/analyses/{analysis}/tables/cells").json()
            found[device] = {(row["step"], row["sign"], row["cell"]): row["mass_moved"] for row in rows}
    assert found["cpu"].keys() == found["cuda"].keys()
    for place, mass in found["cpu"].items():
        assert found["cuda"][place] == pytest.approx(mass, abs=1e-4), place

"""Every notebook runs from its first cell to its last, on the real run's scored step, and its numbers are right.

They are kept without outputs: numbers belong to the data that they are run on, and a diff shows what was changed.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from dppo_core.masks import keep_ppo
from dppo_core.rate_match import rate_matched_delta
from service.client import Client
from tests.conftest import RealStep
from tests.live import REPOSITORY, Server

NOTEBOOKS = REPOSITORY / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"


def executed(name: str, folder: Path, ask: str, **env: str) -> tuple[dict[str, Any], int]:
    """The values of the expressions `ask`, by name, at the end of a notebook, and how many figures it showed."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({ask}))"))
    ours = {"PYTHONPATH": str(REPOSITORY), "IPYTHONDIR": str(folder), "TMPDIR": str(folder), **env}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}})
    client.execute(env={**os.environ, **ours})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    return json.loads(outputs[-1].text), sum(FIGURE in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.iterdir()), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.model
def test_first_look(real_step: RealStep, tmp_path: Path) -> None:
    found, figures = executed(
        "first_look",
        tmp_path,
        "{'cells': cells.iloc[:, :5].values.tolist(), 'unknown': int(cells['unknown'].sum()), "
        "'disputed': disputed[['dppo_only', 'ppo_only']].sum(axis=1).tolist(), 'service': service.url}",
        DPPO_DATA_DIR=str(real_step.server.data_dir),
    )
    assert figures == 5
    assert found["service"] == real_step.server.url
    expected = real_step.expected["anchor_rollout"]
    cells = expected["cells"]["binary_tv_0.15"]  # this step has no token with A = 0
    slack = expected["close_calls"]["ppo_within_1e-3"] + expected["close_calls"]["binary_tv_0.15_within_1e-4"]
    ((step, *counts),) = found["cells"]
    assert (step, sum(counts), found["unknown"]) == (0, sum(cells), 0)
    assert all(abs(count - wanted) <= slack for count, wanted in zip(counts, cells, strict=True)), (counts, cells)
    assert found["disputed"] == sorted(found["disputed"], reverse=True)
    assert 0 < sum(found["disputed"]) <= counts[1] + counts[2]


@pytest.mark.model
def test_dppo_vs_ppo(real_step: RealStep, tmp_path: Path) -> None:
    found, figures = executed(
        "dppo_vs_ppo",
        tmp_path,
        "{'deltas': by_delta.to_pylist(), 'matched': matched.to_dict('records'), "
        "'still': still_disputed['decision'].value_counts().to_dict()}",
        DPPO_DATA_DIR=str(real_step.server.data_dir),
    )
    assert figures == 4
    expected = real_step.expected["anchor_rollout"]
    dropped = {(row["delta"], row["sign"]): row["dropped"] for row in found["deltas"]}
    for delta in (0.15, 0.05):
        wanted = expected["dppo_dropped"][f"binary_tv_{delta}"]
        slack = expected["close_calls"][f"binary_tv_{delta}_within_1e-4"]
        assert abs(dropped[delta, "A > 0"] - wanted["positive"]) <= slack
        assert abs(dropped[delta, "A < 0"] - wanted["negative"]) <= slack
    # the macros' rate-matched δ against dppo_core's, which sorts tensors
    with Client.local(real_step.server.data_dir) as lens:
        tokens = lens.sql(
            "SELECT tv_binary, log_ratio, advantage FROM tokens WHERE analysis = $analysis",
            {"analysis": real_step.analyses["rollout"]},
        )
    divergence, log_ratio, advantage = (torch.tensor(column.to_pylist()).double() for column in tokens.columns)
    ppo = keep_ppo(log_ratio, advantage, 0.2, 0.28)
    for row in found["matched"]:
        sign = 1 if row["sign"] == "A > 0" else -1
        match = rate_matched_delta(divergence, log_ratio, advantage, ppo, sign)
        assert (row["n"], row["dropped"]) == (match.tokens, match.dropped_ppo)
        assert row["delta"] == pytest.approx(match.delta, abs=1e-7)
    assert found["still"]["only DPPO drops"] == found["still"]["only PPO drops"]


def test_check_your_log(server: Server, tmp_path: Path) -> None:
    found, figures = executed(
        "check_your_log",
        tmp_path,
        "{'done': done, 'refused': refused.problem['errors'], 'worst': worst.to_dict('records')}",
        DPPO_SERVER_URL=server.url,
    )
    assert figures == 1
    assert found["done"]["rollouts"] == 4
    (warning,) = found["done"]["warnings"]
    assert (warning["code"], warning["count"]) == ("zero_logprobs", 2)
    (example,) = warning["examples"]
    assert (example["line"], example["field"], example["sample_id"]) == (3, "rollout_logprobs", "2")
    ((line, field, message),) = ((each["line"], each["field"], each["message"]) for each in found["refused"])
    assert (line, field) == (2, "generation_logprobs")
    assert "5 entries, expected 6" in message
    first, second, *_ = found["worst"]
    assert (first["sample_id"], first["p_rollout"]) == ("2", 1)
    assert first["tv_binary_mismatch"] == pytest.approx(1 - math.exp(-2.3), abs=1e-6)
    # of the lines that are as they should be the worst is "1": e^-.4 and e^-1.6, A < 0, r = e^-1.2 < .8
    assert (second["sample_id"], second["position"]) == ("1", 1)
    assert second["log_mismatch"] == pytest.approx(-1.2, abs=1e-6)
    assert second["tv_binary_mismatch"] == pytest.approx(math.exp(-0.4) - math.exp(-1.6), abs=1e-6)
    assert second["keep_ppo"] is second["keep_dppo_binary_tv"] is False

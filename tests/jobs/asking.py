"""What tests of analyses share: runs and checkpoints of a live server, and the tokens that it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import torch

from tests.live import Server


def register(server: Server, run: str, checkpoints: list[Path], adapters: list[Path | None] | None = None) -> list[str]:
    ids = []
    for step, path in enumerate(checkpoints):
        adapter = adapters[step] if adapters else None
        body = {"step": step, "path": str(path), "adapter": str(adapter) if adapter else None}
        response = server.api.post(f"/runs/{run}/checkpoints", json=body)
        assert response.status_code == 201, response.text
        ids.append(response.json()["checkpoint"])
    return ids


def create(server: Server, run: str, rows: list[dict[str, Any]], **sampling: Any) -> None:
    assert server.api.post("/runs", json={"run": run, "sampling": sampling}).status_code == 201
    assert server.upload(run, rows)["state"] == "done"


def tokens_of(server: Server, analysis: str, where: str = "true") -> list[dict[str, Any]]:
    with duckdb.connect(server.data_dir / "lens.duckdb", read_only=True) as connection:
        cursor = connection.execute(
            f"SELECT * FROM tokens WHERE analysis = ? AND {where} ORDER BY step, sample_id, position", [analysis]
        )
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def logits_of(path: Path, row: dict[str, Any], adapter: Path | None = None) -> torch.Tensor:
    """Logits that predict each response token: one unpadded sequence, the whole model, eager attention."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    ids = row["prompt_token_ids"] + row["response_token_ids"]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0]
    return logits[len(row["prompt_token_ids"]) - 1 : -1]

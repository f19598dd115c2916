"""Where things lie in the data directory.

<data-dir>/
  serve.lock                       held by the one service process; names its PID and address
  catalog.duckdb                   owned by the service: what exists
  lens.duckdb                      published for readers; replaced atomically
  incoming/                        uploads while they arrive and are checked
  rollouts/R/S/<piece>.parquet     validated input of run R, step S; never modified
  work/X/<shard>.parquet           shards of scoring X as workers finish them
  work/A/<table>.parquet           what is measured over analysis A, until the catalog has it
  work/A/decisions/<step>.parquet  … and what every method decides, until it is published
  tokens/scoring=X/part.parquet    a finished scoring; never modified
  tokens/scoring=X/moved.parquet   … its tokens that moved, one by one
  tokens/scoring=X/quiet.parquet   … and sums over the others
  decisions/measurement=M/<step>.parquet
                                   what every method decides of an analysis's tokens; never modified
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SEED", "Layout", "fsync_path"]

SEED = "0seed"  # sorts before every id, so that the empty typed files give the views their schema


@dataclass(frozen=True)
class Layout:
    """The paths below one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "serve.lock"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def lens(self) -> Path:
        return self.root / "lens.duckdb"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def rollouts(self) -> Path:
        return self.root / "rollouts"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def decisions(self) -> Path:
        return self.root / "decisions"

    def step(self, run_id: str, step: int) -> Path:
        return self.rollouts / run_id / str(step)

    def shards(self, scoring: str) -> Path:
        return self.work / scoring

    def measures(self, analysis: str) -> Path:
        return self.work / analysis

    def segment(self, scoring: str) -> Path:
        return self.tokens / f"scoring={scoring}" / "part.parquet"

    def moved(self, scoring: str) -> Path:
        return self.segment(scoring).with_name("moved.parquet")

    def quiet(self, scoring: str) -> Path:
        return self.segment(scoring).with_name("quiet.parquet")

    def measurement(self, measurement: str) -> Path:
        return self.decisions / f"measurement={measurement}"

    def create(self) -> None:
        """Make the directories (idempotent)."""
        for path in (self.root, self.incoming, self.rollouts, self.work, self.tokens, self.decisions):
            path.mkdir(parents=True, exist_ok=True)


def fsync_path(path: Path) -> None:
    """Make a finished file, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

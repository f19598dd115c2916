"""What is measured: a run's checkpoints and responses, and the sizes of the synthetic parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["REAL", "Dashboards", "Sizes", "Source"]

ROOT = Path(__file__).parent.parent
RUN = ROOT / "service" / "cli" / "demo_data" / "smollm2-arith"


@dataclass(frozen=True)
class Source:
    """A base checkpoint, OLD and NEW as adapters of it, and the responses to one prompt at the step between them."""

    base: Path
    old: Path
    new: Path
    rollouts: Path
    group: str


REAL = Source(
    base=ROOT / ".cache" / "SmolLM2-135M-Instruct",
    old=RUN / "adapters" / "step_002",
    new=RUN / "adapters" / "step_003",
    rollouts=RUN / "rollouts.jsonl.gz",
    group="s2/g3",
)
"""The demo's run: SmolLM2-135M-Instruct, V = 49,152. Of its 30 groups of eight this one is most like the whole run:
504 response tokens; padding to the group's longest response costs 27 % (run: 29 %), and its prompt computed once
leaves 1/1.67 of the tokens (run: 1/1.67)."""


@dataclass(frozen=True)
class Dashboards:
    """A made-up run: `steps` steps of about `tokens` tokens, of which the first `distinct` differ."""

    steps: int
    tokens: int
    distinct: int


@dataclass(frozen=True)
class Sizes:
    """The parts' sizes: `memory_*` tokens by vocabularies; tokens of a shared `prompt` and of `responses` to it, at one
    of which, `whole_pass`, more than the backbone is timed; bytes of the file that is imported; `logger_*`: training
    steps, the least seconds of one, seconds without a service; runs whose dashboards are opened."""

    source: Source = REAL
    memory_vocabularies: tuple[int, ...] = (49_152, 151_936)
    memory_tokens: tuple[int, ...] = (256, 1024, 4096)
    prompt: int = 512
    responses: tuple[int, ...] = (64, 128, 256, 512)
    whole_pass: int = 128
    ingest_bytes: int = 10**9
    logger_steps: int = 160
    logger_step: float = 0.25
    logger_outage: float = 30
    dashboards: tuple[Dashboards, ...] = (Dashboards(100, 100_000, 100), Dashboards(1000, 100_000, 100))

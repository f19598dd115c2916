"""`make bench`: one table of what scoring, importing and logging cost on this machine and how exact scoring is, kept in
results.json."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.sizes import Sizes

RESULTS = Path(__file__).with_name("results.json")
PARTS = {
    "statistics": "the statistics' time over backbone + LM head, inside the same pass, float32 and bfloat16",
    "end-to-end": "a whole pass against the naive full-logits form, padded and unpadded",
    "memory": "peak memory over the backbone's at 256, 1,024 and 4,096 tokens, V = 49,152 and 151,936",
    "sharing": "8 responses to a prompt of 512 tokens with the prompt computed once, over once for each",
    "accuracy": "largest error of every divergence against float64 on real logits",
    "ingest": "an import of 1 GB with every check and the Parquet write, over a bare msgspec parse; its peak memory",
    "dashboards": "every page and figure of a run of 10 and of 100 million tokens, by HTTP from a real server",
    "logger": "RolloutLogger.log over a training step, its 99 % quantile; what an outage of the service loses",
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Ratios measured side by side in one process: rotated repeats, medians, an A/A control. "
        "Run it on a machine that does nothing else.",
        epilog="parts:\n" + "\n".join(f"  {name:<12} {text}" for name, text in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts to run (all)")
    parser.add_argument("--repeats", type=int, default=7, help="rotated repeats, at least 1 (%(default)s)")
    parser.add_argument("--threads", type=int, help="torch's threads (all cores)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens compared with float64 (%(default)s)")
    parser.add_argument("--ingest-mb", type=int, default=1000, help="size of the imported file (%(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results.json if all parts ran)")
    parsed = parser.parse_args(argv)
    if unknown := set(parsed.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if min(parsed.repeats, parsed.tokens, parsed.ingest_mb) < 1:
        parser.error("--repeats, --tokens and --ingest-mb are at least 1")
    parsed.parts = [name for name in PARTS if not parsed.parts or name in parsed.parts]
    if parsed.out is None and parsed.parts == list(PARTS):
        parsed.out = RESULTS
    return parsed


def _quiet() -> None:
    """Keep what libraries say of themselves out of the table."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)  # between transformers and peft; not ours to mend
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def main(argv: Sequence[str] | None = None, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parsed = arguments(argv)
    sizes = sizes or Sizes(ingest_bytes=parsed.ingest_mb * 10**6)
    _quiet()
    import torch

    from benchmarks import accuracy, dashboards, ingest, logger, machine, memory, scoring, sharing
    from benchmarks.table import as_json, as_text
    from benchmarks.timing import Progress

    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    about = machine.description()
    progress = Progress()
    lines = scoring.run(sizes.source, parsed.parts, parsed.repeats, progress.of("scoring"))
    if "memory" in parsed.parts:
        lines += memory.run(sizes, progress.of("memory"))
    if "sharing" in parsed.parts:
        lines += sharing.run(sizes, parsed.repeats, progress.of("sharing"))
    if "accuracy" in parsed.parts:
        lines += accuracy.run(sizes.source, parsed.tokens, progress.of("accuracy"))
    if "ingest" in parsed.parts:
        lines += ingest.run(sizes, parsed.repeats, progress.of("ingest"))
    if "dashboards" in parsed.parts:
        lines += dashboards.run(sizes, progress.of("dashboards"))
    if "logger" in parsed.parts:
        lines += logger.run(sizes, progress.of("logger"))
    progress.close()

    flags = " ".join(flag for flag in about["vector_flags"] if flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16"))
    sys.stdout.write(f"{about['processor']} ({flags}), {about['threads']} threads, torch {about['torch']}, ")
    sys.stdout.write(f"load {about['load_average']} at the start; {parsed.repeats} repeats\n\n{as_text(lines)}\n")
    targets = [line.holds for line in lines if line.holds is not None]
    sys.stdout.write(f"\n{sum(targets)} of {len(targets)} targets hold\n")
    if parsed.out:
        report = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": about,
            "repeats": parsed.repeats,
            "lines": [as_json(line) for line in lines],
        }
        parsed.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        sys.stdout.write(f"written to {parsed.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What to run where the trainer runs, for dumps that are pickles of the trainer's own classes.

Opening a pickle runs what it says, so neither the service nor `dppo convert` opens one. These few lines do, in the
environment that wrote it, and write NDJSON that `dppo upload` takes as it is, with `--step N` where the dump does not
hold its step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.ingest.adapters.dataproto import BATCH_KEYS, NON_TENSOR_KEYS, VERSIONS
from service.ingest.adapters.skyrl import ROW_KEYS

__all__ = ["DATAPROTO", "PLAIN", "SKYRL", "TRANSFER_QUEUE", "Export", "instructions", "way_out"]


@dataclass(frozen=True)
class Export:
    """A snippet, in which DUMP and OUT stand for the files' names, and the command that takes what it writes."""

    about: str
    code: str
    out: str = "rollouts.jsonl"
    then: str = "dppo upload RUN OUT --step N"

    def snippet(self, dump: str, out: str | None = None) -> str:
        """The code for one dump, ready to be pasted."""
        return self.code.replace("DUMP", repr(dump)).replace("OUT", repr(out or self.out))


SKYRL = Export(
    "a SkyRL batch (TensorBatch)",
    f"""import json, pathlib, pickle
batch = pickle.loads(pathlib.Path(DUMP).read_bytes())
keys = [k for k in {ROW_KEYS!r} if batch.get(k) is not None]
rows = len(batch["sequences"]) - (batch.metadata or {{}}).get("pad_size", 0)  # the rest are copies of the first
with open(OUT, "w") as out:
    out.writelines(json.dumps(dict(zip(keys, row))) + "\\n" for row in zip(*(batch[k][:rows].tolist() for k in keys)))
""",
)

DATAPROTO = Export(
    "a DataProto of verl or ROLL",
    f"""import json, pathlib, pickle
data = pickle.loads(pathlib.Path(DUMP).read_bytes())
columns = {{k: data.batch[k].tolist() for k in {BATCH_KEYS!r} if k in data.batch.keys()}}
columns |= {{k: [str(v) for v in data.non_tensor_batch[k]] for k in {NON_TENSOR_KEYS!r} if k in data.non_tensor_batch}}
with open(OUT, "w") as out:
    out.writelines(json.dumps(dict(zip(columns, row))) + "\\n" for row in zip(*columns.values()))
""",
)

TRANSFER_QUEUE = Export(
    "a TransferQueue batch of verl (tq_batch.pt)",
    f"""import json, torch
dump = torch.load(DUMP, weights_only=False, map_location="cpu")
with open(OUT, "w") as out:
    for key, tag, td in zip(dump["keys"], dump["tags"], dump["tensordict"]):
        row = {{k: td[k].tolist() for k in {BATCH_KEYS!r} if k in td.keys()}} | {{k: tag.get(k) for k in {VERSIONS!r}}}
        out.write(json.dumps(row | {{"uid": key.rsplit("_", 2)[0], "row": key, "step": dump["global_steps"]}}) + "\\n")
""",
    then="dppo upload RUN OUT",
)

PLAIN = Export(
    "a dump with objects of the trainer's own classes in it",
    """import dataclasses, torch
def plain(x):
    x = vars(x) if dataclasses.is_dataclass(x) else x.tolist() if hasattr(x, "tolist") else x
    x = {k: plain(v) for k, v in x.items()} if isinstance(x, dict) else x
    return [plain(v) for v in x] if isinstance(x, (list, tuple)) else x
torch.save(plain(torch.load(DUMP, weights_only=False, map_location="cpu")), OUT)
""",
    "plain.pt",
    "dppo convert auto OUT -o rollouts.jsonl.gz",
)


def way_out(classes: Iterable[str]) -> Export:
    """The export for a pickle that names these classes."""
    names = [name.rpartition(".")[2] for name in classes]
    if any(name in ("TensorBatch", "TrainingInputBatch") for name in names):
        return SKYRL
    if "DataProto" in names:
        return DATAPROTO
    return TRANSFER_QUEUE if "TensorDict" in names else PLAIN


def instructions(export: Export, dump: str) -> str:
    """What to tell the user of a dump."""
    code = "".join(f"    {line}\n" for line in export.snippet(dump).splitlines())
    return (
        f"If it is {export.about} from your own trainer, run this where the trainer runs, which is where opening it is "
        f"safe:\n\n{code}\nand then: {export.then.replace('OUT', export.out)}"
    )

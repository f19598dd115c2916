"""slime: `--save-debug-rollout-data` and `--save-debug-train-data` (format 2), one file each per rollout_id.

The rollout file holds what was sampled: `{rollout_id, samples: [Sample]}`. The train file holds what the trainer made
of it: `{format_version: 2, rollout_id, rank, samples, dp_shards, raw_reward}`, its samples in the rollout file's order.
Either is enough; together they are joined on `rollout_position`, else on `sample_index`, and must agree on the tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from service.ingest.adapters.common import rest
from service.ingest.adapters.sample import Notes, aligned, bad, known, sample_ids, sample_record

__all__ = ["OLD_LOGPROBS", "TRAIN_FIELDS", "is_rollout_dump", "is_train_dump", "slime_records"]

TRAIN_FIELDS = (
    *("data_parallel_rank", "sample_index", "rollout_position", "tokens", "response_lengths", "rewards", "truncated"),
    *("rollout_ids", "loss_masks", "rollout_log_probs", "local_raw_reward", "log_probs", "advantages"),
    *("entropy", "source_names"),
)
OLD_LOGPROBS = "log_probs of the dump: recomputed before the update, or captured from the training forward"
_META = {
    **{name: name for name in ("data_parallel_rank", "truncated")},
    "rewards": "normalized_reward",
    "source_names": "source",
    "rollout_ids": "rollout_id",
}

UNTRAINED = "responses of the rollout dump are not in the train dump: they have no advantage and no old log-probs"
NORMALIZED = "responses have the trainer's processed reward (GRPO normalises it): the dump has no raw one"

Sample = Mapping[str, Any]


def is_rollout_dump(content: Mapping[str, Any]) -> bool:
    """Whether plain data is a rollout dump of slime (or of miles, which has the same)."""
    samples = content.get("samples")
    return (
        "rollout_id" in content
        and isinstance(samples, list)
        and all(isinstance(one, dict) and "response_length" in one for one in samples)
    )


def is_train_dump(content: Mapping[str, Any]) -> bool:
    """Whether plain data is a train dump of slime, format 2."""
    samples = content.get("samples")
    known_layout = content.get("format_version") == 2 and isinstance(content.get("dp_shards"), list)
    return known_layout and isinstance(samples, list) and all(isinstance(one, dict) for one in samples)


def slime_records(
    step: int, rollout: Mapping[str, Any] | None, train: Mapping[str, Any] | None, notes: Notes
) -> Iterator[dict[str, Any]]:
    """Native records of one step from its rollout dump, its train dump, or both. Raises `BadRecord`."""
    trained: Sequence[Sample] = [] if train is None else train["samples"]
    if rollout is None:
        samples: Sequence[Sample] = [_as_sample(sample) for sample in trained]
        places: Mapping[int, Sample] = dict(enumerate(trained))
        order = [_position(sample, place) for place, sample in enumerate(trained)]
    else:
        samples = rollout["samples"]
        places = _joined(samples, trained)
        order = list(range(len(samples)))
    ids = sample_ids([sample.get("index") for sample in samples], order)
    minibatches = _minibatches([] if train is None else train.get("dp_shards") or [])
    raw_rewards = None if train is None else train.get("raw_reward")
    for place, sample in enumerate(samples):
        record = sample_record(step, place, sample, ids[place], notes)
        if record is None:
            continue
        if place in places:
            _add_training(place, record, places[place], raw_rewards, notes)
            if train is not None and train.get("rank") is not None:
                record["meta"]["rank"] = train["rank"]  # of the process that wrote the dump
            minibatch = minibatches.get(_position(places[place], place))
            if minibatch is not None:
                record["minibatch"] = minibatch
        elif train is not None:
            notes[UNTRAINED] += 1
        yield record


def _position(trained: Sample, place: int) -> int:
    """Where a train sample stood in the rollout batch."""
    position = trained.get("rollout_position")
    return place if position is None else int(position)


def _as_sample(trained: Sample) -> Sample:
    """A train sample under the names of the rollout dump, as far as it knows them."""
    return {
        "index": trained.get("sample_index"),
        "tokens": trained.get("tokens"),
        "response_length": trained.get("response_lengths"),
        "loss_mask": trained.get("loss_masks"),
        "rollout_log_probs": trained.get("rollout_log_probs"),
        "status": "truncated" if trained.get("truncated") else None,
    }


def _joined(samples: Sequence[Sample], trained: Sequence[Sample]) -> dict[int, Sample]:
    """The train sample of each place in the rollout dump. Raises `BadRecord` where they are of different batches."""
    by_index: dict[Any, list[int]] = {}
    for place, sample in enumerate(samples):
        by_index.setdefault(sample.get("index"), []).append(place)
    found: dict[int, Sample] = {}
    for number, one in enumerate(trained):
        position, index = one.get("rollout_position"), one.get("sample_index")
        candidates = [] if position is None else [int(position)]
        candidates += [] if index is None else by_index.get(index, [])
        places = [place for place in candidates if place not in found and _same(samples, place, one)]
        if not places:
            raise bad(
                number,
                "tokens",
                f"the train dump's sample (rollout_position {position}, sample_index {index}) has no sample with these "
                "tokens in the rollout dump: the two files are not of one batch",
            )
        found[places[0]] = one
    return found


def _same(samples: Sequence[Sample], place: int, trained: Sample) -> bool:
    return (
        place < len(samples)
        and samples[place].get("tokens") == trained.get("tokens")
        and samples[place].get("response_length") == trained.get("response_lengths")
    )


def _minibatches(shards: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Which optimizer step of the batch each rollout position was part of, where the shards' schedule says it."""
    found: dict[int, int] = {}
    for shard in shards:
        partition, batches, counts = (
            shard.get(name) for name in ("partition", "micro_batch_indices", "num_microbatches")
        )
        if not partition or not batches or not counts or sum(counts) != len(batches):
            return {}
        ends = list(accumulate(counts))
        for number, rows in enumerate(batches):
            found.update({int(partition[row]): bisect_right(ends, number) for row in rows})
    return found


def _add_training(
    place: int, record: dict[str, Any], trained: Sample, raw_rewards: Sequence[Any] | None, notes: Notes
) -> None:
    """What the trainer computed, into the record of its sample."""
    length = len(record["response_token_ids"])
    if trained.get("loss_masks") is not None:
        record["response_mask"] = aligned(place, "loss_masks", trained["loss_masks"], length)
    mask = record["response_mask"]
    meta = record.setdefault("meta", {})
    for source, target in (("rollout_log_probs", "rollout_logprobs"), ("log_probs", "old_logprobs")):
        if trained.get(source) is not None:
            record[target] = known(aligned(place, source, trained[source], length), mask, notes)
    if "old_logprobs" in record:
        meta["old_logprobs"] = OLD_LOGPROBS
    if trained.get("advantages") is not None:
        advantages = aligned(place, "advantages", trained["advantages"], length)
        record["advantage"] = known(advantages, mask, notes)
    reward = _raw_reward(place, trained, raw_rewards)
    if reward is not None:
        record["reward"] = reward
    elif "reward" not in record and trained.get("rewards") is not None:
        record["reward"] = trained["rewards"]
        notes[NORMALIZED] += 1
    if trained.get("entropy") is not None:
        meta["entropy"] = known(aligned(place, "entropy", trained["entropy"], length), mask, notes)
    meta.update({name: trained[source] for source, name in _META.items() if trained.get(source) is not None})
    meta.update(rest(trained, TRAIN_FIELDS))


def _raw_reward(place: int, trained: Sample, raw_rewards: Sequence[Any] | None) -> float | None:
    """The environment's reward: this sample's own, or its place in the list over the whole batch."""
    reward = trained.get("local_raw_reward")
    position = trained.get("rollout_position")
    if reward is None and raw_rewards is not None and position is not None:
        if not 0 <= int(position) < len(raw_rewards):
            message = f"{position} is no place in the batch's {len(raw_rewards)} raw rewards"
            raise bad(place, "rollout_position", message)
        reward = raw_rewards[int(position)]
    return reward if isinstance(reward, (int, float)) and not isinstance(reward, bool) else None

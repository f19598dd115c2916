"""The trainer's own mask, where an imported log has it, against the masks of the trainer's framework."""

from __future__ import annotations

from dataclasses import asdict

from service.schemas.findings import Finding
from service.schemas.methods import Thresholds, framework_thresholds
from service.store.catalog import Row
from service.store.lens import Lens

__all__ = ["trainer_mask"]

ALIKE = 0.999  # share of the tokens with A ≠ 0 from which a difference is a note
SLACK = 1e-4  # as in the macro _beside_trainer
METHODS = {"ppo": "PPO", "dppo_binary_tv": "DPPO by binary TV", "dppo_binary_kl": "DPPO by binary KL"}
DIFFERENCES = {
    "near_threshold": "{n} lie at the threshold",
    "threshold": "{n} follow another threshold{ranges}",
    "direction": "{n} are dropped while they move toward r = 1, as a symmetric mask (IPO) does",
    "other": "{n} follow no threshold",
    "no_gradient": "{n} with A = 0 are dropped, which changes no gradient",
    "unknown": "{n} cannot be compared, for want of a log-prob or an advantage",
}


def trainer_mask(lens: Lens, pieces: list[str], *frameworks: str | None) -> list[Finding]:
    """What the trainer dropped against PPO and DPPO from μ, in one finding; none where no token has its decision, both
    log-probs and an advantage other than 0.

    At the thresholds of the first of `frameworks` that is known. The method that is named leaves fewest differences
    unexplained, then agrees best; every class of difference is counted.
    """
    if not pieces:
        return []
    preset, thresholds = framework_thresholds(*frameworks)
    rows = lens.table("trainer_mask", {"pieces": pieces, **asdict(thresholds)}).to_pylist()
    if not rows:
        return []
    best, differ = rows[0], rows[0]["n"] - rows[0]["n_alike"]
    message = (
        f"trainer_keep against {METHODS[best['method']]} from μ at {_at(best['method'], thresholds)} "
        f"({preset}), evaluated at new_logprobs: {best['n_alike']:,} of {best['n']:,} tokens with A ≠ 0 are decided "
        f"alike ({100 * best['agreement']:.5g} %)"
    )
    found = {entry["class"]: entry["n"] for entry in best["differences"]}
    parts = [
        words.format(n=f"{found[name]:,}", ranges=_ranges(best)) for name, words in DIFFERENCES.items() if name in found
    ]
    return [
        {
            "level": "note" if best["agreement"] >= ALIKE else "warning",
            "code": "trainer_mask",
            "message": "; ".join([message, *parts]),
            "count": differ,
            "examples": best["examples"],
            "source": "trainer_mask",
        }
    ]


def _at(method: str, thresholds: Thresholds) -> str:
    names = {"ppo": ("ε", "eps"), "dppo_binary_tv": ("δ", "delta_tv"), "dppo_binary_kl": ("δ", "delta_kl")}
    symbol, name = names[method]
    low, high = (getattr(thresholds, f"{name}_{side}") for side in ("low", "high"))
    return f"{symbol} = {low:g}" if low == high else f"{symbol} = {low:g}/{high:g}"


def _ranges(row: Row) -> str:
    """The thresholds that decide as the trainer does, by sign of A."""
    sides = {"A < 0": (row["kept_low"], row["dropped_low"]), "A > 0": (row["kept_high"], row["dropped_high"])}
    found = [f"{_between(*ends)} for {sign}" for sign, ends in sides.items() if _consistent(*ends)]
    return f" ({', '.join(found)})" if found else ""


def _consistent(kept: float | None, dropped: float | None) -> bool:
    return (kept, dropped) != (None, None) and (kept is None or dropped is None or kept < dropped + SLACK)


def _between(kept: float | None, dropped: float | None) -> str:
    if kept is None:
        return f"below {dropped:.3g}"
    return f"above {kept:.3g}" if dropped is None else f"between {kept:.3g} and {dropped:.3g}"

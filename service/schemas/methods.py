"""The registry of methods as documents, and the names of an analysis's thresholds. No mathematics, no torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel

from dppo_core.methods.catalog import METHODS, PRESETS, Thresholds

__all__ = [
    "LIVE",
    "METHODS",
    "METHOD_NAMES",
    "PRESETS",
    "THRESHOLDS",
    "MethodOut",
    "Thresholds",
    "all_methods",
    "framework_thresholds",
    "title",
]

METHOD_NAMES = tuple(METHODS)
THRESHOLDS = tuple(field.name for field in fields(Thresholds))
LIVE = ("ppo", "dppo")
"""What a view decides under its own thresholds; a registered method stands as it was measured."""
assert not METHODS.keys() & set(LIVE)

MASKS: dict[str, dict[str, str]] = {
    "ppo_rollout": {"eps_low": "eps_low", "eps_high": "eps_high", "dual_clip": "dual_clip"},
    "dppo_binary_tv_rollout": {"delta_tv_low": "delta_low", "delta_tv_high": "delta_high"},
    "dppo_binary_kl_rollout": {"delta_kl_low": "delta_low", "delta_kl_high": "delta_high"},
}
"""The masks that a sampled token's log-probs decide: which threshold is which parameter of the method."""
FRAMEWORKS = {"verifiers": "prime-rl"}
"""Whose trainer writes a format."""

Parameter = float | int | str | None


class MethodOut(BaseModel):
    """One method: its rule, where it comes from, what it needs and which parameters frameworks give it.

    `status`: read (first-hand in the paper or the authors' code), secondary (from notes), derived (here), unverified
    (shown, but in no agreement table). `level`: over what it decides. `needs`: the inputs without which it is
    unavailable. `variants`: parameter sets under the names of the frameworks that use them.
    """

    method: str
    title: str
    rule: str
    source: str
    status: Literal["read", "secondary", "derived", "unverified"]
    level: Literal["token", "sequence", "prompt"]
    needs: list[str]
    parameters: dict[str, Parameter]
    variants: dict[str, dict[str, Parameter]]


def all_methods() -> list[MethodOut]:
    """Every registered method, in the order of registration."""
    return [MethodOut.model_validate(method.document()) for method in METHODS.values()]


def framework_thresholds(*names: str | None) -> tuple[str, Thresholds]:
    """The thresholds that a framework gives PPO and binary DPPO from μ, and its name: the first of `names` that is
    known, else the paper's. What it does not set is the paper's too."""
    for name in names:
        known = (name or "").lower().replace("_", "-")
        known, given = FRAMEWORKS.get(known, known), dict[str, Any]()
        for method, names_of in MASKS.items():
            variant = METHODS[method].variants.get(known, {})
            given |= {field: variant[parameter] for field, parameter in names_of.items() if parameter in variant}
        if given:
            return known, Thresholds(**given)
    return "paper-stability", Thresholds()


def title(method: str) -> str:
    """What a method of a view is called: PPO and DPPO, which are decided live, or a registered method's title."""
    return method.upper() if method in LIVE else METHODS[method].title

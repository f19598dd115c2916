"""The registry of methods as documents, and the names of an analysis's thresholds. No mathematics, no torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import BaseModel

from dppo_core.methods.catalog import METHODS, Thresholds

__all__ = ["THRESHOLDS", "MethodOut", "all_methods"]

THRESHOLDS = tuple(field.name for field in fields(Thresholds))

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

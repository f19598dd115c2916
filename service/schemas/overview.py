"""What the pages over a run's steps show: the query strings of a run and of two analyses side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from service.schemas.methods import METHOD_NAMES
from service.schemas.view import Address, Step, View

__all__ = ["MOST_METHODS", "CompareView", "OverviewView", "RunView"]

MOST_METHODS = 8  # lines that can still be told apart


def _known_methods(text: str) -> str:
    names = text.split(",")
    unknown = [name for name in names if name not in METHOD_NAMES]
    if unknown:
        raise ValueError(f"no method is called {unknown[0]!r}; there are {', '.join(METHOD_NAMES)}")
    if len(names) > MOST_METHODS:
        raise ValueError(f"{len(names)} methods in one figure cannot be told apart; name at most {MOST_METHODS}")
    return text


Methods = Annotated[str, AfterValidator(_known_methods)]
"""Names of registered methods with commas between them."""


class OverviewView(View):
    """The view of a run's steps: whose mask rates are shown; None: those of PPO and of DPPO with binary TV."""

    methods: Methods | None = None


class RunView(Address):
    """What the page of a run shows: an analysis, and methods as in `OverviewView`. `first`: where its table begins."""

    analysis: str | None = None
    methods: Methods | None = None
    first: Step = 0

    def parameters(self, run: str) -> dict[str, Any]:
        """SQL parameters."""
        return {"run": run, "analysis": self.analysis, "methods": self.methods, "step": None}


class CompareView(View):
    """The view of one analysis, and of another, `b`, beside it, whose view's names have `b_` before them.

    `step=3&b=…&b_step=7` is step 3 of the analysis in the path against step 7 of analysis `b`.
    """

    b: str
    other: View = Field(alias="b_")  # so that an error names the field as the query string does

    @classmethod
    def of(cls, query: Mapping[str, Any], besides: set[str]) -> Self:
        """Both views in a query string. Raises `Invalid` for unknown keys and values."""
        other = {name[2:]: value for name, value in query.items() if name.startswith("b_") and value != ""}
        return super().of({**{name: query[name] for name in query if name[:2] != "b_"}, "b_": other}, besides)

    @property
    def chosen(self) -> dict[str, Any]:
        """The query string of a link to the same two views."""
        own = self.model_dump(exclude_none=True, exclude_defaults=True, exclude={"b", "other"})
        return {**own, "b": self.b, **{f"b_{name}": value for name, value in self.other.chosen.items()}}

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """SQL parameters of the first side; what the second's view says of its own analysis is added to them."""
        return {**super().parameters(analysis), "b": self.b, "other": self.other}

"""What a page or a figure shows: the query string of a view, and the parameters of its SQL."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import FieldError, Invalid
from service.schemas.methods import LIVE, METHODS, PRESETS
from service.schemas.requests import Anchor, Divergence, EvaluatedAt, Positive

__all__ = [
    "DIVERGENCES",
    "Address",
    "ApproximationView",
    "DisagreementView",
    "MethodsView",
    "Metric",
    "ReaderView",
    "ResponseView",
    "Step",
    "TokensView",
    "TrainerView",
    "View",
    "plane_limits",
]

Metric = Literal[
    "decision",
    "ratio",
    "tv_binary",
    "kl_binary",
    "tv_topk",
    "kl_topk",
    "tv_exact",
    "kl_exact",
    "log_mismatch",
    "entropy_old",
    "entropy_new",
    "advantage",
]
DIVERGENCES = ("binary_tv", "binary_kl", "topk_tv", "topk_kl", "exact_tv", "exact_kl")

Step = Annotated[int, Field(ge=0, lt=2**32)]


def _one_of(names: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"there is no {name!r}; there are {', '.join(names)}")
        return name

    return AfterValidator(check)


Preset = Annotated[str, _one_of(tuple(PRESETS))]
MethodName = Annotated[str, _one_of((*LIVE, *METHODS))]
Probability = Annotated[float, Field(ge=0, le=1)]


class Address(BaseModel):
    """What a query string says; a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, query: Mapping[str, Any], besides: set[str]) -> Self:
        """The view in a query string whose other keys are `besides`. Raises `Invalid` for unknown keys and values."""
        given = {name: value for name, value in query.items() if name not in besides and value != ""}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            found = [
                FieldError(
                    entry["msg"].removeprefix("Value error, "),
                    field="".join(str(part) for part in entry["loc"]) or None,
                )
                for entry in error.errors()
            ]
            words = [f"{entry.field}: {entry.message}" if entry.field else entry.message for entry in found[:3]]
            raise Invalid("; ".join(words), found[:20]) from error

    @property
    def chosen(self) -> dict[str, Any]:
        """What differs from the view's defaults: the query string of a link to the same view."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)


class View(Address):
    """The state of a view; every field unset shows the analysis as it was asked for.

    `preset` replaces the analysis's thresholds, and each threshold that is given replaces the preset's. `delta_low`,
    `delta_high` are those of the chosen divergence. `sign` limits the planes to one sign of the advantage, `step`
    everything to one step.
    """

    step: Step | None = None
    sign: Literal["-1", "0", "1"] | None = None
    anchor: Anchor | None = None
    evaluated_at: EvaluatedAt | None = None
    divergence: Literal["binary_tv", "binary_kl", "topk_tv", "topk_kl", "exact_tv", "exact_kl"] = "binary_tv"
    preset: Preset | None = None
    eps_low: Annotated[float, Field(ge=0, le=1)] | None = None
    eps_high: Divergence | None = None
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    delta_low: Divergence | None = None
    delta_high: Divergence | None = None
    weight_cap: Positive | None = None

    @property
    def common(self) -> dict[str, Any]:
        """What of it every page has: what a link to another page keeps."""
        return {name: value for name, value in self.chosen.items() if name in View.model_fields}

    @property
    def kind(self) -> str:
        """tv or kl: what the view's thresholds are of."""
        return self.divergence.rpartition("_")[2]

    def thresholds(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """The preset's thresholds, or the analysis's own: what each is where it is not given."""
        return analysis if self.preset is None else asdict(PRESETS[self.preset])

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """SQL parameters: what is set here, else what the analysis says."""
        thresholds = self.thresholds(analysis)
        defaults: dict[str, Any] = {
            **dict.fromkeys(type(self).model_fields),
            "anchor": analysis["anchor"],
            "evaluated_at": analysis["evaluated_at"],
            **{name: thresholds[name] for name in ("eps_low", "eps_high", "dual_clip", "weight_cap")},
            "delta_low": thresholds[f"delta_{self.kind}_low"],
            "delta_high": thresholds[f"delta_{self.kind}_high"],
        }
        chosen = self.model_dump(exclude_none=True)
        sign = None if self.sign is None else int(self.sign)
        return {"analysis": analysis["analysis"], "run": analysis["run"], **defaults, **chosen, "sign": sign}


class DisagreementView(View):
    """The view of the Disagreement page: which two methods, and which tokens.

    `match` locks δ to ε: DPPO then drops as many tokens as PPO. `first`, `second`: 'ppo' and 'dppo' are decided under
    this view, other methods as they were measured. `by` names a binning. `p_*`, `y_*` bound the anchor's probability
    and, on the plane `brush`, the ratio or the divergence.
    """

    match: Literal["1"] | None = None
    first: MethodName = "ppo"
    second: MethodName = "dppo"
    by: Literal["probability", "position", "decile", "entropy", "token"] = "probability"
    brush: Literal["ratio", "divergence"] = "ratio"
    p_low: Probability | None = None
    p_high: Probability | None = None
    y_low: Divergence | None = None
    y_high: Divergence | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.first == self.second:
            raise ValueError("first and second are the same method; choose two")
        for name in ("p", "y"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}_low lies above {name}_high")
        return self

    @property
    def brushed(self) -> bool:
        """Whether some tokens are selected on a plane."""
        return any(getattr(self, name) is not None for name in ("p_low", "p_high", "y_low", "y_high"))

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """SQL parameters; what is called `y_*` here is `brush_*` there, where a plane's axis is called so."""
        found = super().parameters(analysis)
        bounds = {f"brush_{side}": found.pop(f"y_{side}") for side in ("low", "high")}
        return {**found, **bounds}


class ResponseView(View):
    """The view of one response, which `step` and `sample_id` name."""

    step: Step
    sample_id: str


class ApproximationView(View):
    """The view of what approximates what: of its divergence only the measure counts, TV or KL."""

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """Those of every view, the measure and K, and the thresholds of both kinds: intervals are always of TV."""
        found = {**super().parameters(analysis), "measure": self.kind, "top_k": analysis["top_k"]}
        return {**found, **_of_both_kinds(found, self.kind, self.thresholds(analysis))}


class MethodsView(View):
    """The view of the registered methods: what their matrix shows."""

    measure: Literal["kappa", "agreement"] = "kappa"


class TrainerView(View):
    """The view of the trainer's own mask, evaluated where the trainer decided unless it says otherwise."""

    evaluated_at: EvaluatedAt = "logged"

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """Those of every view, and the thresholds of both kinds of divergence."""
        found = super().parameters(analysis)
        return {**found, **_of_both_kinds(found, self.kind, self.thresholds(analysis))}


def _of_both_kinds(found: dict[str, Any], kind: str, thresholds: dict[str, Any]) -> dict[str, Any]:
    """delta_tv_low … delta_kl_high: those of the view's own kind as it has them, of the others its preset's."""
    own = {f"delta_{of}_{side}": thresholds[f"delta_{of}_{side}"] for of in ("tv", "kl") for side in ("low", "high")}
    return {**own, **{f"delta_{kind}_{side}": found[f"delta_{side}"] for side in ("low", "high")}}


class ReaderView(ResponseView):
    """A response as it is read: the token in hand, what its text is coloured by, and a response beside it."""

    at: Annotated[int | None, Field(ge=0, lt=2**32)] = None
    metric: Metric = "decision"
    beside: str | None = None


class TokensView(View):
    """Which tokens a method drops most.

    By enrichment only tokens are ranked that occur `least` times. `q` is a part of a token's text, or #id; `cased`
    tells its letters apart. `token_id` opens the places of one token. `first` and `place` are the ranks of the first
    token and the first place on the page.
    """

    method: Literal["ppo", "dppo", "disputed"] = "ppo"
    order: Literal["count", "enrichment"] = "count"
    least: Annotated[int, Field(ge=1, lt=2**31)] = 10
    q: Annotated[str | None, Field(max_length=200)] = None
    cased: Literal["1"] | None = None
    first: Annotated[int, Field(ge=0, lt=2**31)] = 0
    token_id: Annotated[int | None, Field(ge=0, lt=2**32)] = None
    place: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def parameters(self, analysis: dict[str, Any]) -> dict[str, Any]:
        """SQL parameters: `q` as text to find, or `with_id` where it is an id."""
        found = super().parameters(analysis)
        number = re.fullmatch(r"#(\d{1,9})", self.q or "")
        return {**found, "q": None if number else self.q, "with_id": int(number[1]) if number else None}


def plane_limits(log_ratio: float, divergence: float, at: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Axes of the two planes: all but the furthest 0.1 % of the ratios, and every boundary, are inside.

    log_ratio: the 99.9 % quantile of |ln r|; divergence: the largest D; `at`: divergence, eps_low, eps_high,
    delta_low, delta_high.
    """
    below = -math.log1p(-at["eps_low"]) if at["eps_low"] < 1 else 0.0
    reach = max(1.4 * math.log1p(at["eps_high"]), 1.4 * below, math.log(1.6), 1.15 * log_ratio)
    reach = min(reach, math.log(1e4))
    floor = -6.0 if at["divergence"].endswith("tv") else -8.0
    highest = max(divergence, at["delta_low"], at["delta_high"], 1.0)  # a TV is at most 1; labels stand above δ
    return {"ratio": (-reach, reach), "divergence": (floor, min(math.log10(highest) + 0.2, 4.0))}

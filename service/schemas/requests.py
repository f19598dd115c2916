"""Request bodies of the REST API. Unknown keys are errors, so that a typo is never silently ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dppo_core.methods.catalog import PRESETS, Thresholds

__all__ = [
    "Anchor",
    "CreateAnalysis",
    "CreateCheckpoint",
    "CreateRun",
    "EvaluatedAt",
    "Sampling",
    "SqlStatement",
    "ThresholdsBody",
]

Anchor = Literal["rollout", "old"]
EvaluatedAt = Literal["start", "end", "logged"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Divergence = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Body(BaseModel):
    """A strict request body."""

    model_config = ConfigDict(extra="forbid")


class Sampling(BaseModel):
    """How the rollouts were sampled. Other keys are kept. `top_k` 0 or −1 means off."""

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    logprobs_mode: Literal["raw", "processed"] | None = None

    @model_validator(mode="after")
    def _has_a_distribution(self) -> Sampling:
        if self.temperature <= 0 or self.top_k == 1:
            raise ValueError("greedy rollouts (temperature 0 or top_k 1) have no sampling distribution to compare with")
        return self


class CreateRun(Body):
    """`POST /runs`."""

    run: Name
    framework: str | None = Field(None, max_length=100)
    sampling: Sampling = Sampling()
    tokenizer: str | None = Field(None, description="Absolute path of a tokenizer directory inside the roots.")
    meta: dict[str, Any] = Field(default_factory=dict)


class CreateCheckpoint(Body):
    """`POST /runs/{run}/checkpoints`: the policy before `step`."""

    step: int = Field(ge=0, lt=2**32)
    path: str
    adapter: str | None = None
    label: str | None = Field(None, max_length=200)


class ThresholdsBody(Body):
    """Thresholds of an analysis; `delta_tv` and `delta_kl` set both sides. Unset: preset paper-stability."""

    eps_low: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    eps_high: Divergence | None = None
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    delta_tv: Divergence | None = None
    delta_tv_low: Divergence | None = None
    delta_tv_high: Divergence | None = None
    delta_kl: Divergence | None = None
    delta_kl_low: Divergence | None = None
    delta_kl_high: Divergence | None = None
    weight_cap: Positive | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> ThresholdsBody:
        for name in ("delta_tv", "delta_kl"):
            if getattr(self, name) is not None and not (
                getattr(self, f"{name}_low") is None and getattr(self, f"{name}_high") is None
            ):
                raise ValueError(f"{name} sets both sides; give either {name} or {name}_low and {name}_high")
        return self

    def resolve(self) -> Thresholds:
        """Every threshold, with the preset's value where none was given."""
        preset = PRESETS["paper-stability"]

        def pick(name: str, both: float | None = None) -> Any:
            value = getattr(self, name)
            value = both if value is None else value
            return getattr(preset, name) if value is None else value

        return Thresholds(
            eps_low=pick("eps_low"),
            eps_high=pick("eps_high"),
            dual_clip=pick("dual_clip"),
            delta_tv_low=pick("delta_tv_low", self.delta_tv),
            delta_tv_high=pick("delta_tv_high", self.delta_tv),
            delta_kl_low=pick("delta_kl_low", self.delta_kl),
            delta_kl_high=pick("delta_kl_high", self.delta_kl),
            weight_cap=pick("weight_cap"),
        )


class CreateAnalysis(Body):
    """`POST /runs/{run}/analyses`. Unset fields take the defaults that the README lists."""

    steps: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = Field(None, min_length=1)
    old: str | None = Field(None, description="Checkpoint id; with exactly one step.")
    new: str | None = Field(None, description="Checkpoint id; with exactly one step.")
    anchor: Anchor | None = None
    evaluated_at: EvaluatedAt | None = None
    top_k: int = Field(20, ge=1, le=1000)
    topk_mode: Literal["paper", "slots"] = "paper"
    thresholds: ThresholdsBody = Field(default_factory=ThresholdsBody)
    source: Literal["scored", "logged"] = "scored"
    dtype: Literal["float32", "bfloat16"] | None = None


class SqlStatement(Body):
    """`POST /sql`."""

    sql: str

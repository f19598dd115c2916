"""What a run of the lab depends on: one frozen record, and the run's name in which every departure from it shows."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

__all__ = ["Run", "Settings", "parse_setting"]


@dataclass(frozen=True)
class Settings:
    """The setting of all runs. Lengths are tokens, learning rates those of AdamW, thresholds the paper's §5.

    staleness: how many iterations the sampler's weights are behind the trainer's. mantissa, logit_mantissa: explicit
    mantissa bits that the sampler keeps of weights and activations, and of logits (bfloat16 has 7); 23 is float32.
    old_policy: where π_old is taken for the methods that need it: at the trainer's weights when the iteration starts
    (`current`, what an asynchronous trainer recomputes), or at the weights that sampled (`rollout`, the paper's).
    weight_cap: C of the truncated methods. length_norm: L of the loss, Σ over tokens / (sequences · L).
    """

    # the policy
    width: int = 64
    layers: int = 2
    heads: int = 4
    # supervised warm-up
    warmups: int = 2
    warmup_steps: int = 600
    warmup_batch: int = 128
    warmup_lr: float = 3e-3
    # reinforcement learning
    steps: int = 170
    prompts: int = 32
    group: int = 8
    pool: int = 512
    minibatches: int = 4
    lr: float = 1.5e-4
    lr_rise: int = 10
    weight_decay: float = 0.01
    max_norm: float = 1.0
    length_norm: float = 20.0
    staleness: int = 4
    mantissa: int = 5
    logit_mantissa: int = 7
    old_policy: Literal["current", "rollout"] = "current"
    # thresholds
    eps_low: float = 0.2
    eps_high: float = 0.28
    delta_tv: float = 0.15
    delta_kl: float = 0.05
    weight_cap: float = 3.0
    bad_update: float = 0.5
    top_k: int = 20

    def __post_init__(self) -> None:
        if self.prompts * self.group % self.minibatches:
            raise ValueError(
                f"{self.prompts} prompts x {self.group} responses cannot be split into {self.minibatches} minibatches"
            )
        if not 1 <= self.mantissa <= 23 or not 1 <= self.logit_mantissa <= 23:
            raise ValueError("mantissa and logit_mantissa are 1 to 23 bits; 23 is float32")
        if self.old_policy not in ("current", "rollout"):
            raise ValueError(f"old_policy is current or rollout, not {self.old_policy!r}")
        if self.staleness < 0 or self.steps < 1:
            raise ValueError("staleness is at least 0, and steps at least 1")


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` as a field of `Settings` and its value. Raises ValueError where there is no such field."""
    name, equals, value = text.partition("=")
    defaults = asdict(Settings())
    if not equals or name not in defaults:
        raise ValueError(f"{text!r} is not name=value with a name of: {', '.join(defaults)}")
    kind = type(defaults[name])
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(f"{name} is a {kind.__name__}, not {value!r}") from None


NAME = re.compile(r"(?P<method>[a-z_]+)(?P<settings>(,[a-z_]+=[^,=]+)*)-s(?P<seed>\d+)")


@dataclass(frozen=True)
class Run:
    """One run: a method, a seed and the settings. Its warm-up checkpoint is number seed mod `warmups`."""

    method: str
    seed: int
    settings: Settings = field(default_factory=Settings)

    @property
    def warmup(self) -> int:
        return self.seed % self.settings.warmups

    @property
    def arm(self) -> str:
        """The method and every setting that is not the default: what runs of several seeds share."""
        default = Settings()
        changed = [
            f",{each.name}={value}"
            for each in fields(Settings)
            if (value := getattr(self.settings, each.name)) != getattr(default, each.name)
        ]
        return self.method + "".join(changed)

    @property
    def name(self) -> str:
        """`arm-sSEED`: the run's identity, and its file's name."""
        return f"{self.arm}-s{self.seed}"

    @staticmethod
    def parse(name: str) -> Run:
        """The run of a name. Raises ValueError where it is none."""
        found = NAME.fullmatch(name)
        if not found:
            raise ValueError(f"{name!r} is not the name of a run, such as dppo_binary_tv,staleness=0-s10")
        changed = dict(parse_setting(part) for part in found["settings"].split(",")[1:])
        return Run(found["method"], int(found["seed"]), replace(Settings(), **changed))

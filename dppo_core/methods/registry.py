"""The registry of methods: which token keeps its gradient, and with which coefficient. Torch-free.

A method is one pure function over `dppo_core.tokens.TokenArrays` that returns `coef` [N], the signed multiplier of
∇log π(a) (PPO: keep·r·A), decorated with what a reader must know about it. Its docstring's first paragraph is its
rule; its keyword parameters with their defaults are its thresholds. The functions use tensors' own methods only, so
that a service can list them without loading torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from dppo_core.tokens import TokenArrays

__all__ = ["METHODS", "Coefficients", "Level", "Method", "Parameter", "Status", "Unavailable", "method"]

Parameter = float | int | str | None
Status = Literal["read", "secondary", "derived", "unverified"]
"""How its formula was learnt: read first-hand in the paper or the authors' code, known from secondary notes only,
derived here and checked numerically, or unverified (shown, but outside agreement tables)."""
Level = Literal["token", "sequence", "prompt"]
"""Over what a decision is made; an input that is not known makes the whole token, response or prompt unknown."""


class Unavailable(Exception):
    """A method's inputs are not in the log; the message says which."""


@dataclass(frozen=True)
class Coefficients:
    """What a method says of N tokens, decided in float64.

    coef [N]: the signed multiplier of ∇log π(a), NaN where not known; keep [N] bool: true = the token keeps its
    gradient (coef·A > 0, and A = 0 keeps, unless the method defines it otherwise), false where not known; known [N].
    """

    coef: Tensor
    keep: Tensor
    known: Tensor


Function = Callable[..., "Tensor | tuple[Tensor, Tensor]"]


@dataclass(frozen=True)
class Method:
    """A registered method. `variants` are parameter sets under the names of the frameworks that use them.

    `needs`: the inputs under its default parameters. Where other parameters read other inputs, `needs_of` gives them
    from all parameters by name; ask `inputs`.
    """

    name: str
    title: str
    rule: str
    source: str
    status: Status
    level: Level
    needs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    variants: Mapping[str, Mapping[str, Parameter]]
    function: Function = field(repr=False, compare=False)
    needs_of: Callable[..., tuple[str, ...]] | None = field(default=None, repr=False, compare=False)

    def inputs(self, variant: str | None = None, **parameters: Parameter) -> tuple[str, ...]:
        """The inputs that it needs under a variant's parameters and those given. KeyError for an unknown variant."""
        if self.needs_of is None:
            return self.needs
        return self.needs_of(**{**self.parameters, **self._chosen(variant, parameters)})

    def __call__(self, tokens: TokenArrays, variant: str | None = None, **parameters: Parameter) -> Coefficients:
        """Evaluate on `tokens` under a variant's parameters and those given, which win.

        Raises `Unavailable` where an input is missing, KeyError for an unknown variant, TypeError for an unknown
        parameter.
        """
        chosen = self._chosen(variant, parameters)
        needs = self.inputs(variant, **parameters)
        for need in needs:
            reason = tokens.missing(need)
            if reason is not None:
                raise Unavailable(f"{self.name}: {reason}")
        found = self.function(tokens, **chosen)
        coef, keep = found if isinstance(found, tuple) else (found, None)
        advantage = tokens.advantage
        if keep is None:
            keep = (coef * advantage > 0) | (advantage == 0)
        known = tokens.known(needs, self.level) & ~coef.isnan()
        return Coefficients(coef.masked_fill(~known, float("nan")), keep & known, known)

    def _chosen(self, variant: str | None, parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
        return {**(self.variants[variant] if variant else {}), **parameters}

    def document(self) -> dict[str, object]:
        """What a reader must know about it, as plain values: the document of `GET /api/v1/methods`."""
        return {
            "method": self.name,
            "title": self.title,
            "rule": self.rule,
            "source": self.source,
            "status": self.status,
            "level": self.level,
            "needs": list(self.needs),
            "parameters": dict(self.parameters),
            "variants": {name: dict(chosen) for name, chosen in self.variants.items()},
        }


METHODS: dict[str, Method] = {}


def method(
    name: str,
    title: str,
    *,
    source: str,
    status: Status,
    needs: tuple[str, ...] | Callable[..., tuple[str, ...]],
    level: Level = "token",
    variants: Mapping[str, Mapping[str, Parameter]] | None = None,
) -> Callable[[Function], Function]:
    """Register a function as a method. `needs` names the inputs of `TokenArrays` that it reads (`INPUTS` there), or is
    a function from all its parameters, by name, to those names.

    The function takes the tokens and keyword-only parameters, and returns coef [N] float64; or (coef, keep) where
    keep is not the sign of coef·A.
    """

    def register(function: Function) -> Function:
        if name in METHODS:
            raise ValueError(f"a method named {name!r} is registered already")
        defaults = {
            key: parameter.default
            for key, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for variant, chosen in (variants or {}).items():
            unknown = set(chosen) - set(defaults)
            if unknown:
                raise ValueError(f"variant {variant!r} of {name!r} sets unknown parameters {sorted(unknown)}")
        rule = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
        if not rule:
            raise ValueError(f"method {name!r} needs a docstring: its first paragraph is its rule")
        needs_of = needs if callable(needs) else None
        default_needs = needs(**defaults) if callable(needs) else needs
        METHODS[name] = Method(
            name, title, rule, source, status, level, default_needs, defaults, dict(variants or {}), function, needs_of
        )
        return function

    return register

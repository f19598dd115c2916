"""What pages and figures call things. Each name is written here once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from web.numbers import count, number, plain

__all__ = [
    "ANCHORS",
    "BINNINGS",
    "CELLS",
    "DIVERGENCES",
    "METHODS",
    "METRICS",
    "POINTS",
    "PRESETS",
    "PRESET_NOTES",
    "SIGNS",
    "bin_label",
    "cell_name",
    "cell_slots",
    "decision_dppo",
    "decision_ppo",
    "mark_sentence",
    "method_labels",
    "pair_arrow",
    "pair_sentence",
    "symbols",
    "unavailable",
    "when",
]

CELLS = ("both_keep", "ppo_only_drops", "dppo_only_drops", "both_drop")
SIGNS = {1: "A > 0", -1: "A < 0", 0: "A = 0", None: "no advantage"}
ANCHORS = {"rollout": "μ, the rollout policy", "old": "π_old, recomputed"}
POINTS = {"start": "start of the step", "end": "end of the step", "logged": "as the trainer logged it"}
DIVERGENCES = {
    "binary_tv": "binary TV",
    "binary_kl": "binary KL",
    "topk_tv": "top-K TV",
    "topk_kl": "top-K KL",
    "exact_tv": "exact TV",
    "exact_kl": "exact KL",
}
METHODS = {"ppo": "PPO", "dppo": "DPPO", "disputed": "only one of them"}
METRICS = {
    "decision": "decision",
    "ratio": "ratio r",
    "tv_binary": "binary TV",
    "kl_binary": "binary KL, nats",
    "tv_topk": "top-K TV",
    "kl_topk": "top-K KL, nats",
    "tv_exact": "exact TV, old → new",
    "kl_exact": "exact KL, old → new, nats",
    "log_mismatch": "mismatch log ρ, nats",
    "entropy_old": "entropy of π_old, nats",
    "entropy_new": "entropy of π, new, nats",
    "advantage": "advantage A",
}


def symbols(anchor: str, evaluated_at: str) -> tuple[str, str]:
    """The letters of a pair (anchor, policy) as axes show them."""
    logged = evaluated_at == "logged"
    return (
        "μ" if anchor == "rollout" else "π_old",
        {"start": "π_old", "end": "π", "logged": "π"}[evaluated_at] if not logged else "π",
    )


def pair_arrow(anchor: str, evaluated_at: str) -> str:
    """The pair in two words: μ → NEW."""
    policy = {"start": "OLD", "end": "NEW", "logged": "logged π"}[evaluated_at]
    return f"{'μ' if anchor == 'rollout' else 'π_old'} → {policy}"


def pair_sentence(anchor: str, evaluated_at: str, span: int | None, source: str = "scored") -> str:
    """Names both policies of the pair. `span`: steps between OLD and NEW; None where it is not one number."""
    policy = {
        "start": "π = OLD, the policy at the start of the step",
        "end": "π = NEW, the policy after the step",
        "logged": "π = the trainer’s own policy as it logged it",
    }[evaluated_at]
    if evaluated_at == "end" and span is not None and span != 1:
        policy = f"π = NEW, the policy {span} steps after OLD (this pair spans more than its step)"
    if evaluated_at == "start" and source == "logged":
        policy = "π = π_old, the trainer’s own policy at the start of the step as it logged it"
    base = "μ, the rollout policy"
    if anchor == "old":
        base = "OLD, the policy at the start of the step, recomputed"
        if evaluated_at == "logged":
            base = "the trainer’s own log-probs at the start of the step"
    return f"{policy}; measured from {base}."


def method_labels(methods: Iterable[str]) -> dict[str, str]:
    """What lines of these methods are called, PPO and DPPO first: their names, but plain PPO and DPPO where no other
    method of that name is among them."""
    names = sorted(dict.fromkeys(methods), key=lambda name: (not name.startswith("ppo_"), not name.startswith("dppo_")))
    families = Counter(name.partition("_")[0] for name in names)
    short = {"ppo_rollout": "PPO", "ppo_old": "PPO", "dppo_binary_tv_rollout": "DPPO", "dppo_binary_tv_old": "DPPO"}
    return {name: short[name] if name in short and families[name.partition("_")[0]] == 1 else name for name in names}


def mark_sentence(mark: Mapping[str, Any], anchor: str, evaluated_at: str) -> str:
    """Why a step is marked. `mark`: quantity, value, bound of the table `step_marks`."""
    base, policy = symbols(anchor, evaluated_at)
    value, bound = (
        f"{number(100 * mark[name])} %" if mark["quantity"] == "bad_share" else number(abs(mark[name]))
        for name in ("value", "bound")
    )
    said = {
        "mean_abs_dp": f"mean |{policy} − {base}| is {value}",
        "max_dp": f"a token’s probability rose by {value}",
        "min_dp": f"a token’s probability fell by {value}",
        "bad_share": f"{value} of the tokens with A ≠ 0 are bad updates (A < 0, μ − π ≥ .5)",
        "mean_tv_binary_mismatch": f"the mismatch, mean |π_old − μ|, is {value}",
    }[mark["quantity"]]
    return f"{said}; the first {mark['n_reference']} steps allow {bound}"


def when(evaluated_at: str) -> str:
    """Follows "PPO would drop it"; what was logged was done, and needs no condition."""
    return {"start": "at the step’s start", "end": "at the step’s end", "logged": ""}[evaluated_at]


def cell_slots(first: str, second: str) -> dict[str, str]:
    """From the cells of two methods, as tables name them, to those of PPO and DPPO, whose names pages use for both."""
    return dict(zip(("both_keep", f"{first}_only_drops", f"{second}_only_drops", "both_drop"), CELLS, strict=True))


def cell_name(cell: str, evaluated_at: str, titles: tuple[str, str] = ("PPO", "DPPO")) -> str:
    """ "Dropped" is said of the trainer's own policy only; any other point is a condition. `titles`: of two methods."""
    done = evaluated_at == "logged"
    return {
        "both_keep": "both kept" if done else "both keep",
        "ppo_only_drops": f"only {titles[0]} dropped" if done else f"only {titles[0]} would drop",
        "dppo_only_drops": f"only {titles[1]} dropped" if done else f"only {titles[1]} would drop",
        "both_drop": "both dropped" if done else "both would drop",
        "no_gradient": "no gradient either way",
        "unknown": "not known",
        "masked": "not counted",
    }[cell]


PRESETS = {
    "paper-stability": "paper-stability",
    "paper-scaling": "paper-scaling",
    "paper-scaling-lora": "paper-scaling, LoRA",
    "trl": "TRL",
    "verl": "verl",
    "prime-rl": "prime-rl",
    "zaya1-8b": "ZAYA1-8B",
}
PRESET_NOTES = {
    "trl": "δ of KL is .15 in TRL’s code, .05 in its documentation; its top-K has 20 slots",
    "verl": "verl’s defaults, with the KL threshold of its script (whose δ of TV is .15)",
    "prime-rl": "prime-rl has δ of TV only: ε, δ of KL and C are the paper’s",
    "zaya1-8b": "of ZAYA1-8B only δ of TV is known: the rest is the paper’s",
}
BINNINGS = {
    "probability": "probability under the anchor",
    "position": "position in the response",
    "decile": "position, tenths of the tokens",
    "entropy": "entropy of OLD",
    "token": "token",
}


def bin_label(by: str, low: float | None, high: float | None, token: str | None = None) -> str:
    """A bin of one of `BINNINGS`, as rows and axes name it. `token`: its text, already fit for where it stands."""
    if by == "token":
        return token or ""
    if low is None:
        return "not known"
    if by in ("position", "decile"):
        first, last = count(int(low)), count(int(high or low))
        return first if first == last else f"{first} – {last}"
    unit = " nats" if by == "entropy" else ""
    if high is None:
        return f"≥ {plain(low)}{unit}"
    return f"{plain(low)} – {plain(high)}{unit}"


def unavailable(anchor: str, evaluated_at: str, estimate: str, source: str) -> str:
    """Why a pair or an estimate of its divergence is not known."""
    if estimate == "exact" and (anchor == "rollout" or evaluated_at == "logged"):
        held = "of μ a log has at most lists" if anchor == "rollout" else "the log has only the sampled token"
        return f"an exact divergence needs both full distributions; {held}"
    if evaluated_at == "logged":
        if estimate == "topk":
            return "the trainer logged the sampled token only"
        return "the log lacks the trainer’s new_logprobs or what they are measured from"
    if source == "logged":
        return "no checkpoint was scored: the only policies are the logged ones"
    if anchor == "rollout":
        return "the log has no lists of μ" if estimate == "topk" else "the log has no usable rollout_logprobs"
    return "nothing is scored yet"


def _verb(drops: bool, evaluated_at: str) -> str:
    if evaluated_at == "logged":
        return "dropped it" if drops else "kept it"
    return f"{'would drop it' if drops else 'would keep it'} {when(evaluated_at)}"


def decision_ppo(token: Mapping[str, Any], at: Mapping[str, Any], ratio: float | None) -> str:
    """What PPO does to a token and by which comparison. `at` holds the view's thresholds."""
    keep, advantage = token["ppo"], token["advantage"]
    if keep is None or ratio is None:
        return "not known"
    if advantage == 0:
        return "A = 0: no gradient either way"
    verb = _verb(not keep, at["evaluated_at"])
    if advantage > 0:
        return f"{verb}: r = {number(ratio)} {'≤' if keep else '>'} 1 + ε_high = {plain(1 + at['eps_high'])}"
    if not keep and ratio > 1:
        return f"{verb}: r = {number(ratio)} > dual clip c = {plain(at['dual_clip'])}"
    return f"{verb}: r = {number(ratio)} {'≥' if keep else '<'} 1 − ε_low = {plain(1 - at['eps_low'])}"


def decision_dppo(token: Mapping[str, Any], at: Mapping[str, Any], ratio: float | None) -> str:
    """What DPPO does to a token and by which comparison (arXiv:2602.04879 Eq. 12)."""
    keep, advantage, divergence = token["dppo"], token["advantage"], token["divergence"]
    if keep is None or ratio is None or divergence is None:
        return "not known"
    if advantage == 0:
        return "A = 0: no gradient either way"
    verb = _verb(not keep, at["evaluated_at"])
    side, delta = ("high", at["delta_high"]) if advantage > 0 else ("low", at["delta_low"])
    if keep and (ratio - 1) * advantage <= 0:
        return f"{verb}: the update moves the ratio toward 1"
    return f"{verb}: D = {number(divergence)} {'≤' if keep else '>'} δ_{side} = {plain(delta)}"

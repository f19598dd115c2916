"""Dropped tokens against all of their sign, as a table and in words (claim C7)."""

from __future__ import annotations

from typing import Any

from web import words
from web.numbers import count, number, percent, plain

__all__ = ["summary"]

Row = dict[str, Any]
SLUGS = {1: "positive", -1: "negative"}
NBSP = "\u00a0"
METHODS = ("all", "ppo", "dppo", "disputed")


def summary(rows: list[Row], at: Row) -> Row:
    """Every number by key `<sign>.<method>.<measure>`, and a sentence for each sign. rows: `clipped_summary`."""
    model: Row = {}
    for sign, slug in SLUGS.items():
        of_sign = {row["method"]: row for row in rows if row["sign"] == sign}
        whole = of_sign["all"]["n"] if of_sign else None
        for method in METHODS:
            model |= _measures(f"{slug}.{method}", of_sign.get(method), whole)
        model[f"{slug}.said"] = _sentence(of_sign, sign, at) if of_sign else ""
    anchor, _ = words.symbols(at["anchor"], at["evaluated_at"])
    return {
        **model,
        "has_tokens": bool(rows),
        "no_tokens": not rows and at["sign"] != 0,
        "no_gradient": at["sign"] == 0,
        "anchor": anchor,
        "no_entropy": bool(rows) and all(row["mean_entropy"] is None for row in rows),
        "thresholds": f"ε {plain(at['eps_low'])}/{plain(at['eps_high'])} against {words.DIVERGENCES[at['divergence']]} "
        f"δ {plain(at['delta_low'])}/{plain(at['delta_high'])}",
    }


def _measures(key: str, row: Row | None, whole: int | None) -> Row:
    found = row or {"n": None, "mean_p": None, "mean_entropy": None, "n_near": None}
    return {
        f"{key}.n": count(found["n"]),
        f"{key}.share": percent(found["n"], whole),
        f"{key}.p": number(found["mean_p"]),
        f"{key}.entropy": number(found["mean_entropy"]),
        f"{key}.near": count(found["n_near"]),
    }


def _sentence(rows: dict[str, Row], sign: int, at: Row) -> str:
    """Of one sign: how many the chosen method drops, and what kind of tokens they are."""
    whole, part = rows["all"], rows[at["method"]]
    done = at["evaluated_at"] == "logged"
    point = words.when(at["evaluated_at"])
    who = {
        "ppo": "PPO dropped" if done else "PPO would drop",
        "dppo": "DPPO dropped" if done else "DPPO would drop",
        "disputed": "Only one of PPO and DPPO dropped" if done else "Only one of PPO and DPPO would drop",
    }[at["method"]]
    of = f"of the {count(whole['n'])} tokens with {words.SIGNS[sign].replace(' ', NBSP)}{f' {point}' if point else ''}"
    if part["n"] == 0:
        return f"{who} none {of}."
    anchor, _ = words.symbols(at["anchor"], at["evaluated_at"])
    less = "less" if part["mean_p"] < whole["mean_p"] else "more"
    mean = f"mean {number(part['mean_p'])} against {number(whole['mean_p'])} over all"
    found = [f"they were {less} likely under {anchor} ({mean})"]
    if part["mean_entropy"] is not None:
        found.append(
            f"stand where the policy was {'more' if part['mean_entropy'] > whole['mean_entropy'] else 'less'} open "
            f"(mean entropy {number(part['mean_entropy'])} against {number(whole['mean_entropy'])} nats)"
        )
    share = percent(part["n"], whole["n"])
    return f"{who} {count(part['n'])} {of} ({share}): {' and '.join(found)}."

"""How numbers are written: three significant digits, a real minus sign, and a dash where nothing is known."""

from __future__ import annotations

import math

__all__ = ["UNKNOWN", "count", "number", "percent", "plain", "probability", "share", "signed", "size"]

UNKNOWN = "–"
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def count(value: int | None) -> str:
    """1234 → 1,234."""
    return UNKNOWN if value is None else _minus(f"{value:,}")


def number(value: float | None) -> str:
    """Three significant digits: .0285, 1.24, 312, 4,321; below a thousandth as 2.85×10⁻⁵."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return _minus(mantissa) + "×10" + str(int(exponent)).translate(SUPERSCRIPTS)
    if abs(value) >= 999.5:
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:#.3g}".rstrip("."))


def signed(value: float | None) -> str:
    """`number` with its sign written out: +.25, −1.1; for quantities whose direction is the point."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text != UNKNOWN else text


def plain(value: float | None) -> str:
    """A setting as it was given: .2, .28, 5."""
    return UNKNOWN if value is None or not math.isfinite(value) else _minus(f"{value:.6g}")


def percent(part: int | None, whole: int | None) -> str:
    """A share as `2.85 %`. A share of nothing is not known."""
    if part is None or not whole:
        return UNKNOWN
    share = 100 * part / whole
    if part in (0, whole):
        return f"{share:.0f} %"
    if share > 99.95:
        return "> 99.9 %"
    return f"{number(share)} %"


def share(value: float | None) -> str:
    """A share that was not counted, .0285, as `2.85 %`; what is short of all of it does not read as all."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return "> 99.9 %" if 0.9995 < value < 1 else "100 %" if value == 1 else f"{number(100 * value)} %"


def probability(log_probability: float | None) -> str:
    """exp of a log-probability; close to 1 its distance from 1 is what differs, so nines stay: .99972."""
    if log_probability is None or not math.isfinite(log_probability):
        return UNKNOWN
    rest = -math.expm1(min(log_probability, 0.0))
    if 0 < rest < 5e-3:
        return f"1 − {number(rest)}"
    return number(math.exp(log_probability))


def size(n_bytes: int | None) -> str:
    """Bytes as kB, MB, GB (powers of 1000)."""
    if n_bytes is None:
        return UNKNOWN
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{number(value)} {unit}"
        value /= 1000
    raise AssertionError("unreachable")

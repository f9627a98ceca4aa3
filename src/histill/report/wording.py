"""Numbers and findings as a reader expects to see them."""

from __future__ import annotations

from typing import Any

MINUS = "−"


def p_value(value: float | None) -> str:
    """`p = 0.03`, `p < 0.001`, or a word where there is none."""
    if value is None:
        return "no p value"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.1 else f"p = {value:.2f}"


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits with a true minus sign; an en dash where there is no value."""
    return "–" if value is None else f"{_rounded(value, digits):.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{_rounded(value, digits):+.{digits}f}".replace("-", MINUS)


def _rounded(value: float, digits: int) -> float:
    """Without the sign of a zero: a difference of −0.0001 is shown as +0.000, not as −0.000."""
    return round(value, digits) + 0.0


def interval(estimate: dict[str, Any], *, sign: bool = False, digits: int = 3) -> str:
    """`0.123 to 0.456` of an estimate; empty where it has no interval."""
    if estimate["low"] is None:
        return "no interval"
    form = signed if sign else number
    return f"{form(estimate['low'], digits)} to {form(estimate['high'], digits)}"


def thousands(value: float | None) -> str:
    """A count with thin spaces between thousands."""
    return "–" if value is None else f"{round(value):,}".replace(",", "\u202f")


def duration(value: float | None) -> str:
    """Seconds as `0.42 s`, `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2g} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(value: float) -> str:
    """0.95 as `95 %`, with a space that does not break."""
    return f"{100 * value:.4g}\u00a0%"


def plural(value: int, one: str, many: str | None = None) -> str:
    """`1 slide`, `2 slides`."""
    return f"{thousands(value)} {one if value == 1 else many or one + 's'}"


def verdict(comparison: dict[str, Any], metric: dict[str, Any]) -> str:
    """What a difference and its interval say, in words."""
    low, high = comparison["low"], comparison["high"]
    if low is None:
        return "cannot be told"
    if low <= 0 <= high:
        return "no difference shown"
    better = comparison["a"] if (low > 0) == metric["higher_is_better"] else comparison["b"]
    return f"{better} is better"


def plain_p(value: float | None) -> str:
    """A p value as a table cell: `0.030`, `<0.001`, or an en dash where there is none."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def estimate(found: dict[str, Any] | None, confidence: float | None = None, digits: int = 3) -> str:
    """`0.59 (0.54 to 0.64)`, with `95 % interval` in the brackets where the confidence is given."""
    if found is None or found["value"] is None:
        return "no value"
    text = number(found["value"], digits)
    if found["low"] is None:
        return text
    said = f"{percent(confidence)} interval " if confidence else ""
    return f"{text} ({said}{number(found['low'], digits)} to {number(found['high'], digits)})"


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def direction(metric: dict[str, Any]) -> str:
    """What to think of a high value, in brackets; empty where more is better, as one expects."""
    return {True: "", False: " (less is better)", None: " (1 is best)"}[metric["higher_is_better"]]


def inputs(names: str) -> str:
    """`slide+rna` as `slide and RNA`."""
    return names.replace("+", " and ").replace("rna", "RNA")

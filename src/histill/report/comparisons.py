"""Paired differences between models: the value of distillation first, each with its test and what it says in words."""

from __future__ import annotations

from typing import Any

from histill.report import forests
from histill.report.wording import interval, signed, verdict

# What a student has of the transcriptomes of its training patients, by either way of giving it.
_DISTILLATION = ("value of distillation", "value of borrowed genes")


def comparison_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the differences of a task; None where there are none.

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`.

    Returns
    -------
    `metric`, the first; `primary`, its rows; `others`, [(metric, rows)] of the rest; `tests`, names of the tests;
    `corrected`, for how many comparisons the p values are; `figure` of the first metric, `uri` and `alt`. A row is the
    comparison with `verdict` (words), `distillation` (whether it tells what distillation is worth), and `p`, `p_holm`
    and `test`, None where no test was made. Rows that tell of distillation come first.
    """
    by_metric = {metric["key"]: [] for metric in report["metrics"]}
    metrics = {metric["key"]: metric for metric in report["metrics"]}
    for entry in report["comparisons"]:
        tested = {key: entry.get(key) for key in ("p", "p_holm", "test")}
        said = {"verdict": _verdict(entry, metrics[entry["metric"]], report["confidence"])}
        said["distillation"] = tells_of_distillation(entry)
        by_metric[entry["metric"]].append(entry | tested | said)
    if not report["comparisons"]:
        return None
    for rows in by_metric.values():
        rows.sort(key=lambda row: not row["distillation"])
    first, *others = report["metrics"]
    primary = by_metric[first["key"]]
    return {
        "metric": first,
        "primary": primary,
        "others": [(metric, by_metric[metric["key"]]) for metric in others if by_metric[metric["key"]]],
        "tests": sorted({row["test"] for row in primary if row["test"]}),
        "corrected": sum(row["p_holm"] is not None for row in primary),
        "figure": _figure(primary, first),
    }


def _figure(rows: list[dict[str, Any]], metric: dict[str, Any]) -> dict[str, str] | None:
    uri = forests.differences(rows, metric)
    said = "; ".join(f"{row['a']} less {row['b']} {signed(row['value'])} ({interval(row, sign=True)})" for row in rows)
    return {"uri": uri, "alt": f"Paired differences in {metric['name']}: {said}."} if uri else None


def _verdict(comparison: dict[str, Any], metric: dict[str, Any], confidence: float) -> str:
    """What the interval says, and whether it still does beside all the other comparisons."""
    text, corrected = verdict(comparison, metric), comparison.get("p_holm")
    if corrected is None or corrected < 1 - confidence or not text.endswith(" is better"):
        return text
    return f"{text.removesuffix(' is better')} is ahead, but not after correction"


def tells_of_distillation(comparison: dict[str, Any]) -> bool:
    """Whether a comparison is a student less the same network, or the same encoder, without a teacher."""
    return comparison["meaning"].startswith(_DISTILLATION)

"""Few-shot probes of a task: rows of the table, and the figure."""

from __future__ import annotations

from typing import Any

from histill.evaluation.few_shot import table_rows
from histill.report.wording import number


def few_shot_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the few-shot probes of a task; None where there are none.

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`.

    Returns
    -------
    `n` patients, `note`, `warnings`, `figure` (`uri`, `alt`), and `models`: [(name, [(shots, estimates)])], where
    estimates are in the order of the report's metrics and the last row is of all training patients.
    """
    if "few_shot" not in report:
        return None
    from histill.report import pretraining_figures

    found = report["few_shot"]
    keys = [metric["key"] for metric in report["metrics"]]
    models: dict[str, list] = {}
    for name, shots, metrics in table_rows(found):
        models.setdefault(name, []).append((shots, [metrics[key] for key in keys]))
    return {
        "n": found["n"],
        "note": found["note"],
        "warnings": found["warnings"],
        "figure": {"uri": pretraining_figures.few_shot(report), "alt": _said(models, report["metrics"][0]["name"])},
        "models": list(models.items()),
    }


def _said(models: dict[str, list], metric: str) -> str:
    """The first metric of every model by shots, in words."""
    lines = [
        f"{name} " + ", ".join(f"{number(estimates[0]['value'])} at {shots}" for shots, estimates in rows)
        for name, rows in models.items()
    ]
    return f"{metric} over the number of training patients: {'; '.join(lines)}."

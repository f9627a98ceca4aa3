"""The table of models and metrics of one set of patients, grouped by what a model needs of a patient."""

from __future__ import annotations

from typing import Any

from histill.report import forests
from histill.report.wording import estimate, inputs


def metric_table(report: dict[str, Any], scored: dict[str, Any]) -> dict[str, Any]:
    """Groups of rows, and the forest plot.

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`.
    scored
        Its `paired`, or what is shaped like it.

    Returns
    -------
    `groups`, [(what is needed, rows)], those that need the slide alone first; a row has `name`, `student`, and
    `estimates` in the order of the report's metrics. `figure`, `uri` and `alt`, or None.
    """
    groups: dict[str, list[dict[str, Any]]] = {"slide": []}
    for model in report["models"]:
        name = model["name"]
        if name in scored["models"]:
            found = [scored["models"][name][metric["key"]] for metric in report["metrics"]]
            row = {"name": name, "student": is_student(name), "estimates": found}
            groups.setdefault(model["inputs"], []).append(row)
    names = [row["name"] for rows in groups.values() for row in rows]
    uri = forests.models(report, scored, names) if names else None
    return {
        "groups": [
            (f"{inputs(needs)}{' alone' if '+' not in needs else ''}", rows) for needs, rows in groups.items() if rows
        ],
        "figure": {"uri": uri, "alt": _said(report, scored)} if uri else None,
    }


def is_student(name: str) -> bool:
    """Whether a model is one that a teacher taught, or that borrows genes: it reads the slide alone."""
    return name.endswith(" student")


def _said(report: dict[str, Any], scored: dict[str, Any]) -> str:
    """The first metric of every model, in words."""
    first = report["metrics"][0]
    values = [f"{name} {estimate(found[first['key']])}" for name, found in scored["models"].items()]
    return f"{first['name']} of the models with intervals: {'; '.join(values)}."

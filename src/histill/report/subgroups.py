"""Metrics of subgroups of the test patients: by site, sex, stage, scanner."""

from __future__ import annotations

from typing import Any

from histill.report import forests
from histill.report.figures import main_models, model_style
from histill.report.forests import Row
from histill.report.metric_table import is_student
from histill.report.wording import estimate, plural

MOST_MODELS = 4


def subgroup_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the subgroups of a task; None where the clinical sheet has no such column.

    Returns
    -------
    `note`; `metric`, the first; `models`, names of the table's columns; `columns`, each with `column`, `missing` and
    `rows`: `level`, `n`, `outcome` (words), `small`, `estimates`, one a model. `figure`, `uri` and `alt` of the first
    of the models, or None.
    """
    found = report.get("subgroups")
    columns = [column for column in found["columns"] if column["levels"]] if found else []
    if not columns:
        return None
    metric = report["metrics"][0]
    names = list(dict.fromkeys(name for column in columns for level in column["levels"] for name in level["models"]))
    names = sorted(main_models(names, MOST_MODELS), key=lambda name: not is_student(name))
    tables = [
        {"column": column["column"], "missing": column["missing"], "rows": _rows(column, names, metric["key"])}
        for column in columns
    ]
    return {
        "note": found["note"],
        "metric": metric,
        "models": names,
        "columns": tables,
        "figure": _figure(tables, names[0], metric) if names else None,
    }


def _rows(column: dict[str, Any], names: list[str], key: str) -> list[dict[str, Any]]:
    return [
        {
            "level": level["level"],
            "n": level["n"],
            "outcome": _outcome(level),
            "small": level["small"],
            "estimates": [level["models"].get(name, {}).get(key) for name in names],
        }
        for level in column["levels"]
    ]


def _outcome(level: dict[str, Any]) -> str:
    if "events" in level:
        return plural(level["events"], "event")
    return ", ".join(f"{name}: {n}" for name, n in level["classes"].items())


def _figure(tables: list[dict[str, Any]], name: str, metric: dict[str, Any]) -> dict[str, str] | None:
    colour = model_style(name)["color"]
    scored = [(table["column"], row) for table in tables for row in table["rows"] if row["estimates"][0]]
    rows = [Row(f"{column}: {row['level']} (n {row['n']})", row["estimates"][:1], colour) for column, row in scored]
    said = [f"{column} {row['level']} {estimate(row['estimates'][0])}" for column, row in scored]
    uri = forests.draw(rows, [f"{metric['name']} of {name}"], [0.5], panel_inches=4.6)
    return {"uri": uri, "alt": f"{metric['name']} of {name} by subgroup: {'; '.join(said)}."} if uri else None

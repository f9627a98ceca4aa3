"""A task's part of the page: everything its evaluation found, each section with its figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.provenance import read_json
from histill.redact import redact
from histill.report.calibration import calibration_facts
from histill.report.comparisons import comparison_facts
from histill.report.decisions import decision_facts
from histill.report.external import external_facts
from histill.report.few_shot import few_shot_facts
from histill.report.horizons import horizon_facts
from histill.report.metric_table import metric_table
from histill.report.subgroups import subgroup_facts


def task_facts(name: str, config: dict[str, Any], results: Path) -> dict[str, Any]:
    """A task's evaluation with its figures.

    Returns
    -------
    `name`, `options`, `report` (of `histill.evaluation.stage.run`), and where the task has been evaluated `headline`
    (the first metric), `table` and `external` (`metric_table`), `comparisons`, `few_shot`, `curves`, `horizons`,
    `calibration`, `decisions`, `subgroups`; each is None where there is nothing to show. `report` is None where the
    task has not been evaluated.
    """
    path = results / "evaluation" / f"{name}.json"
    facts: dict[str, Any] = {"name": name, "options": config["tasks"][name], "report": None}
    if not path.exists():
        return facts
    from histill.report import curves

    report = redact(read_json(path))
    survival = report["type"] == "survival"
    unit = report["columns"].get("time", "time")
    return facts | {
        "report": report,
        "headline": report["metrics"][0],
        "table": metric_table(report, report["paired"]),
        "comparisons": comparison_facts(report),
        "few_shot": few_shot_facts(report),
        "curves": curves.kaplan_meier(report, unit) if survival else curves.roc(report),
        "horizons": horizon_facts(report),
        "calibration": calibration_facts(report),
        "decisions": decision_facts(report),
        "subgroups": subgroup_facts(report),
        "external": external_facts(report),
    }

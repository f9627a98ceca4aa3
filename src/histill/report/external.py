"""Patients of another cohort, who were only ever tested."""

from __future__ import annotations

from typing import Any

from histill.report.metric_table import metric_table


def external_facts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict a cohort: `name`, `scored` (its patients and estimates), `table` (`histill.report.metric_table`)."""
    cohorts = (report.get("external") or {}).get("cohorts", [])
    return [
        {"name": cohort["name"], "scored": cohort, "table": metric_table(report, cohort)}
        for cohort in cohorts
        if cohort["models"]
    ]

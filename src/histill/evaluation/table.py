"""The evaluation as a flat table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from histill.evaluation import few_shot
from histill.provenance import atomic_file

_HEAD = (
    "task",
    "set",
    "model",
    "inputs",
    "metric",
    "fold",
    "n",
    "events",
    "value",
    "low",
    "high",
    "p",
    "p_holm",
    "test",
)


def write(path: Path, report: dict[str, Any]) -> None:
    """One row a set of patients, model (or difference), metric and fold; `mean`: the value over all folds.

    Sets are `paired` (the patients every model predicted), `own` (all that a model predicted), `external: <cohort>`,
    `few-shot` and `difference`.
    """
    inputs = {model["name"]: model["inputs"] for model in report["models"]}
    cohorts = (report["external"] or {"cohorts": []})["cohorts"]
    sets = [("paired", report["paired"]), *(("own", entry) for entry in report["own"].values())]
    sets += [(f"external: {cohort['name']}", cohort) for cohort in cohorts]
    rows = [
        (kind, name, inputs[name], key, estimate, entry)
        for kind, entry in sets
        for name, by_metric in entry["models"].items()
        for key, estimate in by_metric.items()
    ]
    if "few_shot" in report:
        rows += [
            ("few-shot", f"{name}, {shots}", inputs[name], key, estimate, report["few_shot"])
            for name, shots, metrics_of in few_shot.table_rows(report["few_shot"])
            for key, estimate in metrics_of.items()
        ]
    rows += [
        ("difference", f"{entry['a']} - {entry['b']}", "", entry["metric"], entry, report["paired"])
        for entry in report["comparisons"]
    ]
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(_HEAD)
        for kind, name, needs, key, estimate, entry in rows:
            head = [report["task"], kind, name, needs, key]
            counts = {fold["fold"]: fold for fold in entry["folds"]}
            numbers = [_text(estimate.get(column)) for column in ("value", "low", "high", "p", "p_holm")]
            tail = [*numbers, estimate.get("test", "")]
            writer.writerow([*head, "mean", entry["n"], entry.get("events"), *tail])
            for fold in estimate["folds"]:
                count, blank = counts[fold["fold"]], [""] * 5
                writer.writerow([*head, fold["fold"], count["n"], count.get("events"), _text(fold["value"]), *blank])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

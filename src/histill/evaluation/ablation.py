"""The table of the ablation: the full model and its variants on the same patients, and what each variant loses."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histill.errors import ConfigError, HistillError
from histill.evaluation import horizons, receipts
from histill.evaluation.estimates import Estimate
from histill.evaluation.predictions import Model, read_outcomes, read_predictions
from histill.evaluation.scoring import METRICS, counts, score
from histill.evaluation.stage import FEW_EVENTS
from histill.methods import ablation
from histill.methods.train import run_folder, runs
from histill.provenance import atomic_file, write_json

FULL = "full"
_NOTE = (
    "Teachers are compared on the test patients that all of them predicted, students on those that all students did. "
    "Differences are full model minus variant on the same patients: above 0 the part helps (below 0 for Brier scores, "
    "where less is better; a calibration slope is best at 1). Intervals are percentiles of {draws} bootstrap resamples "
    "of patients within folds, the same for all rows. They do not cover training again: add seeds to see that."
)


@dataclass(frozen=True)
class Arm(Model):
    """A teacher or a student of one row of the table, and the name of the folder of its runs."""

    row: str
    folder: str

    @property
    def name(self) -> str:
        return self.row

    def path(self, results: Path, task: str, fold: int, seed: int) -> Path:
        return run_folder(results, task, self.folder, self.stage, fold, seed) / "predictions.parquet"


def run(*, task: str, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Score the full model and every variant of the ablation; write `evaluation/ablation-<task>.json` and `.tsv`.

    Folds, seeds, metrics and resamples are those of the evaluation of the task (`histill.evaluation.stage`).

    Returns
    -------
    What is written as JSON. `rows`, the full model first: `name`, `meaning`, `changes`, and by role (`teacher`,
    `student`) the `folder` of the runs, `shared` (whether they are the full model's), and `metrics`, key -> `value`,
    `low`, `high`, `folds`, `seeds` and `difference`, full minus variant, with the same keys (None for the full model).

    Raises
    ------
    ConfigError
        The ablation of the config cannot be made.
    HistillError
        Predictions are missing or cannot be scored, or all models of a role have no patient in common.
    """
    if problems := ablation.check(config):
        raise ConfigError(problems)
    results, options = Path(results), config["evaluation"]
    kind, seeds = config["tasks"][task]["type"], list(config["seeds"])
    outcomes = read_outcomes(results, task, kind)
    variants = ablation.variants(config)
    rows = [{"name": FULL, "meaning": "the method as configured", "changes": {}}]
    rows += [{"name": variant.name, "meaning": variant.meaning, "changes": variant.changes} for variant in variants]
    patients = {}
    for role in ablation.ROLES:
        arms = [_arm(config, row["name"], role, task) for row in rows]
        models = [read_predictions(results, task, arm, outcomes, seeds) for arm in arms]
        common = set.intersection(*(model.patients() for model in models))
        if not common:
            raise HistillError(
                f"task '{task}': there is no test patient with a known outcome that every {role} predicted",
                mend=f"check cohort/patients.parquet for patients with the outcome and {arms[0].inputs}",
            )
        times = horizons.choose(outcomes, options["horizons"], models) if kind == "survival" else None
        scores = score(models, common, outcomes, seeds, options["bootstrap"], options["seed"], times)
        patients[role] = {"inputs": arms[0].inputs, "redrawn": scores.redrawn, **counts(common, outcomes)}
        for row, arm in zip(rows, arms, strict=True):
            shared = row["name"] != FULL and arm.folder == arms[0].folder
            metrics = {
                metric.key: _metric(scores.estimates, row["name"], metric.key, options["confidence"])
                for metric in METRICS[kind]
            }
            row[role] = {"folder": arm.folder, "shared": shared, "metrics": metrics}
    report = {
        "task": task,
        "type": kind,
        "classes": list(outcomes.classes),
        "folds": outcomes.folds,
        "seeds": seeds,
        "bootstrap": options["bootstrap"],
        "confidence": options["confidence"],
        "note": _NOTE.format(draws=options["bootstrap"]),
        "warnings": _warnings(patients),
        "metrics": [vars(metric) for metric in METRICS[kind]],
        "patients": patients,
        "rows": rows,
    }
    _write_table(results / "evaluation" / f"ablation-{task}.tsv", report)
    write_json(results / "evaluation" / f"ablation-{task}.json", report)
    arms = [_arm(config, row["name"], role, task) for role in ablation.ROLES for row in rows]
    receipts.write(
        results,
        f"evaluation/ablation-{task}",
        stage="ablation",
        task=task,
        recipe=ablation.table_recipe(config, task=task),
        predictions=(arm.path(results, task, *one) for arm in arms for one in runs(config, results)),
        suffixes=(".json", ".tsv"),
    )
    return report


def _arm(config: dict[str, Any], row: str, role: str, task: str) -> Arm:
    node = ablation.node(config, None if row == FULL else row, role, task=task)
    return Arm(node.method, node.stage, row, node.folder)


def _metric(estimates: dict[str, dict[str, Estimate]], row: str, key: str, confidence: float) -> dict[str, Any]:
    full, own = estimates[FULL][key], estimates[row][key]
    return {**own.plain(confidence), "difference": None if row == FULL else (full - own).plain(confidence)}


def _warnings(patients: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{counts['events']} events among the {counts['n']} patients of the {role}s: intervals will be wide"
        for role, counts in patients.items()
        if counts.get("events", FEW_EVENTS) < FEW_EVENTS
    ]


def _write_table(path: Path, report: dict[str, Any]) -> None:
    """A row a variant; for teacher and student each metric with its interval, and the difference with its own."""
    columns = [(role, metric["key"]) for role in ablation.ROLES for metric in report["metrics"]]
    parts = ("", ":low", ":high", ":difference", ":difference_low", ":difference_high")
    head = [f"{role}:{key}{part}" for role, key in columns for part in parts]
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(["task", "variant", "meaning", *(f"{role}:n" for role in ablation.ROLES), *head])
        counts = [report["patients"][role]["n"] for role in ablation.ROLES]
        for row in report["rows"]:
            values = []
            for role, key in columns:
                found = row[role]["metrics"][key]
                for estimate in (found, found["difference"] or {}):
                    values += [_text(estimate.get(name)) for name in ("value", "low", "high")]
            writer.writerow([report["task"], row["name"], row["meaning"], *counts, *values])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

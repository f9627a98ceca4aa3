"""The evaluation stage: test predictions of all models of a task -> metrics, paired differences, curves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.errors import HistillError
from histill.evaluation import alignment, few_shot, metrics
from histill.evaluation.predictions import Outcomes, Predictions, expected_models, read_outcomes, read_predictions
from histill.evaluation.scoring import METRICS, Scores, by_fold, counts, score
from histill.evaluation.survival_curves import risk_groups, risk_margin
from histill.provenance import atomic_file, write_json

TEACHER, STUDENT = "disentangled teacher", "disentangled student"
# Differences decided on before any number was seen: (a, b, what a - b tells).
COMPARISONS = (
    (STUDENT, "wsi-only", "value of distillation"),
    (TEACHER, "linear-both", "value of the deep multi-modal model"),
    (STUDENT, "abmil", "student against attention pooling"),
    (STUDENT, "linear-slide", "student against the linear model on slides"),
    (TEACHER, STUDENT, "what is lost without the transcriptome"),
    ("mirror student", "wsi-only", "pre-training and distillation against labels alone"),
    ("mirror slide", "linear-slide", "value of the pre-trained slide encoder"),
    ("mirror student", "mirror slide", "value of distillation from the fused probe"),
    ("mirror fused", "linear-both", "value of the pre-trained encoders of both"),
    ("msrl student", "msrl slide", "value of borrowed genes"),
    ("msrl student", "wsi-only", "borrowed genes against labels alone"),
    ("msrl both", "msrl student", "what is lost without the transcriptome"),
    ("msrl student", "linear-slide", "student against the linear model on slides"),
)
FEW_EVENTS = 30  # below, a C-index interval spans most of what is plausible
_ROC_GRID = np.linspace(0.0, 1.0, 51)
_NOTES = {
    "survival": "Harrell's C-index of the test patients is computed for each fold and seed, since risks of different "
    "models are not comparable, then averaged over seeds and folds with equal weights.",
    "classification": "AUC (with more than two classes the macro average of one against the rest), balanced accuracy "
    "and Brier score of the test patients are computed for each fold and seed, then averaged over seeds and folds with "
    "equal weights.",
}
_INTERVAL_NOTE = (
    " Intervals are percentiles of {draws} bootstrap resamples of patients within folds; the same resamples serve all "
    "models and seeds, so differences are paired. They tell how far another sample of patients could move the number "
    "with the trained models as they are; they do not cover training again on other patients."
)
_KAPLAN_MEIER_NOTE = (
    "A test patient is of high risk when the risk lies above the median risk of the training patients of the same "
    "fold's model; with several seeds the distances from that median, in training standard deviations, are averaged. "
    "Folds are pooled; the p value is of the log-rank test."
)


def run(*, task: str, config: dict[str, Any], results: Path) -> dict[str, Any]:
    """Score every model of a task on its test patients and write `evaluation/<task>.json` and `.tsv`.

    Parameters
    ----------
    task
        Name of a task of the config.
    config
        Complete config (`histill.config.load`).
    results
        Results folder with `cohort/` and the predictions of all models that `methods.run` asks for.

    Returns
    -------
    What is written as JSON; undefined values are None.

    Raises
    ------
    HistillError
        A prediction file is missing, has a value that is not finite, or tests a patient of another fold.
    """
    results = Path(results)
    options, kind, seeds = config["evaluation"], config["tasks"][task]["type"], list(config["seeds"])
    outcomes = read_outcomes(results, task, kind)
    models = [read_predictions(results, task, model, outcomes, seeds) for model in expected_models(config)]
    for model in models:
        if not model.patients():
            raise HistillError(
                f"model '{model.model.name}' of task '{task}' has no test patient with a known outcome",
                mend="check cohort/patients.parquet for patients with the outcome and "
                f"{model.model.inputs}, or take '{model.model.method}' out of methods.run",
            )
    sampling = {"seeds": seeds, "draws": options["bootstrap"], "seed": options["seed"]}
    common = set.intersection(*(model.patients() for model in models))
    own = {model.model.name: score([model], model.patients(), outcomes, **sampling) for model in models}
    paired = score(models, common, outcomes, **sampling) if common else None
    report = {
        "task": task,
        "type": kind,
        "columns": Task.from_config(task, config["tasks"][task]).sources(),
        "classes": list(outcomes.classes),
        "folds": outcomes.folds,
        "seeds": seeds,
        "bootstrap": options["bootstrap"],
        "confidence": options["confidence"],
        "note": _NOTES[kind] + _INTERVAL_NOTE.format(draws=options["bootstrap"]),
        "metrics": [vars(metric) for metric in METRICS[kind]],
        "warnings": _warnings(models, common, outcomes),
        "models": [
            {"name": m.model.name, "method": m.model.method, "stage": m.model.stage, "inputs": m.model.inputs}
            for m in models
        ],
        "paired": _set(paired, outcomes, options["confidence"]),
        "own": {name: _set(scores, outcomes, options["confidence"]) for name, scores in own.items()},
        "comparisons": _comparisons(paired, outcomes, options["confidence"]),
    }
    if kind == "survival":
        report["kaplan_meier"] = _kaplan_meier(models, common, outcomes, seeds, options["confidence"])
    else:
        report["roc"] = _roc(models, common, outcomes, seeds)
    report |= _pretrained(results, task, models, outcomes, {**sampling, "confidence": options["confidence"]})
    _write_table(results / "evaluation" / f"{task}.tsv", report)
    write_json(results / "evaluation" / f"{task}.json", report)
    return report


def _pretrained(
    results: Path, task: str, models: list[Predictions], outcomes: Outcomes, options: dict[str, Any]
) -> dict[str, Any]:
    """What only models on pre-trained encoders have: `few_shot` and `alignment`, where their files are."""
    probes = few_shot.run(results, task, models, outcomes, **options)
    aligned = [alignment.run(results, task, model, outcomes, **options) for model in models]
    found = {"note": alignment.NOTE, "models": [entry for entry in aligned if entry]}
    return ({"few_shot": probes} if probes else {}) | ({"alignment": found} if found["models"] else {})


def _set(scores: Scores | None, outcomes: Outcomes, confidence: float) -> dict[str, Any]:
    """Patients and metrics of one set of patients."""
    if scores is None:
        return {**counts(set(), outcomes), "folds": [], "redrawn": 0, "models": {}}
    patients = {patient for members in scores.patients.values() for patient in members}
    return {
        **counts(patients, outcomes),
        "folds": [{"fold": fold, **counts(set(members), outcomes)} for fold, members in scores.patients.items()],
        "redrawn": scores.redrawn,
        "models": {
            name: {key: estimate.plain(confidence) for key, estimate in by_metric.items()}
            for name, by_metric in scores.estimates.items()
        },
    }


def _comparisons(paired: Scores | None, outcomes: Outcomes, confidence: float) -> list[dict[str, Any]]:
    """Differences a - b on the patients every model predicted."""
    if paired is None:
        return []
    found = []
    for first, second, meaning in COMPARISONS:
        if first not in paired.estimates or second not in paired.estimates:
            continue
        for metric in METRICS[outcomes.type]:
            a, b = paired.estimates[first][metric.key], paired.estimates[second][metric.key]
            named = {"a": first, "b": second, "meaning": meaning, "metric": metric.key}
            found.append({**named, **(a - b).plain(confidence)})
    return found


def _kaplan_meier(
    models: list[Predictions], patients: set[str], outcomes: Outcomes, seeds: list[int], confidence: float
) -> dict[str, Any]:
    """Curves on the patients every model predicted."""
    folds = by_fold(patients, outcomes)
    order = [patient for members in folds.values() for patient in members]
    if not order:
        return {"note": _KAPLAN_MEIER_NOTE, "models": {}}
    time, event = np.array([outcomes.values[patient] for patient in order], dtype=np.float64).T
    curves = {}
    for predictions in models:
        margins = [
            np.mean(
                [
                    risk_margin(
                        np.array([predictions.test[fold, seed][patient][0] for patient in members]),
                        predictions.training_risk[fold, seed],
                    )
                    for seed in seeds
                ],
                axis=0,
            )
            for fold, members in folds.items()
        ]
        curves[predictions.model.name] = risk_groups(event, time, np.concatenate(margins), confidence)
    return {"note": _KAPLAN_MEIER_NOTE, "models": curves}


def _roc(models: list[Predictions], patients: set[str], outcomes: Outcomes, seeds: list[int]) -> dict[str, Any]:
    """ROC curves on the patients every model predicted: true-positive rate averaged over folds, seeds and classes."""
    folds = by_fold(patients, outcomes)
    curves = {}
    for predictions in models:
        rates = []
        for fold, members in folds.items():
            labels = np.array([outcomes.values[patient] for patient in members])
            for seed in seeds:
                outputs = np.stack([predictions.test[fold, seed][patient] for patient in members])
                rates.append(metrics.roc_curve(labels, outputs, _ROC_GRID))
        rates = [rate for rate in rates if rate is not None]
        if rates:
            curves[predictions.model.name] = np.mean(rates, axis=0).round(5).tolist()
    return {"false_positive_rate": _ROC_GRID.round(5).tolist(), "true_positive_rate": curves}


def _warnings(models: list[Predictions], common: set[str], outcomes: Outcomes) -> list[str]:
    found = []
    if not common:
        found.append("no patient was predicted by every model, so models are not compared")
    elif outcomes.type == "survival":
        events = counts(common, outcomes)["events"]
        if events < FEW_EVENTS:
            found.append(f"{events} events among the {len(common)} compared patients: intervals will be wide")
    for fold in outcomes.folds:
        values = [outcomes.values[patient] for patient in common if outcomes.fold[patient] == fold]
        if outcomes.type == "classification" and len(set(values)) < 2:
            found.append(
                f"fold {fold}: the compared patients are of fewer than two classes; left out of AUC and accuracy"
            )
        if outcomes.type == "survival" and not _comparable(values):
            found.append(f"fold {fold}: the compared patients hold no comparable pair; left out of the C-index")
    for predictions in models:
        if outcomes.type == "survival" and any(risk.std() == 0 for risk in predictions.training_risk.values()):
            found.append(f"{predictions.model.name}: a fold's model gives every training patient the same risk")
        uneven = set().union(*predictions.test.values()) - predictions.patients()
        if uneven:
            found.append(
                f"{predictions.model.name}: {len(uneven)} patients lack a prediction under some seed; left out"
            )
    return found


def _comparable(values: list[tuple[float, int]]) -> bool:
    if not values:
        return False
    time, event = np.array(values, dtype=np.float64).T
    return bool(metrics.comparable_pairs(event, time).any())


def _write_table(path: Path, report: dict[str, Any]) -> None:
    """Flat table: one row a set of patients, model (or difference), metric and fold (`mean`: over all folds)."""
    inputs = {model["name"]: model["inputs"] for model in report["models"]}
    sets = [("paired", report["paired"]), *(("own", entry) for entry in report["own"].values())]
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
        writer.writerow(["task", "set", "model", "inputs", "metric", "fold", "n", "events", "value", "low", "high"])
        for kind, name, needs, key, estimate, entry in rows:
            head = [report["task"], kind, name, needs, key]
            counts = {fold["fold"]: fold for fold in entry["folds"]}
            bounds = [estimate["value"], estimate["low"], estimate["high"]]
            writer.writerow([*head, "mean", entry["n"], entry.get("events"), *map(_text, bounds)])
            for fold in estimate["folds"]:
                count = counts[fold["fold"]]
                writer.writerow([*head, fold["fold"], count["n"], count.get("events"), _text(fold["value"]), "", ""])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

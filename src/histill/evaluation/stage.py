"""The evaluation stage: test predictions of all models of a task -> metrics, comparisons, curves, subgroups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.errors import HistillError
from histill.evaluation import (
    alignment,
    calibration,
    decision_curves,
    few_shot,
    horizons,
    metrics,
    receipts,
    roc,
    subgroups,
    survival_curves,
    table,
)
from histill.evaluation.comparisons import compare
from histill.evaluation.external import external_cohorts
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import (
    Model,
    Outcomes,
    Predictions,
    expected_models,
    read_outcomes,
    read_predictions,
)
from histill.evaluation.scoring import METRICS, Scores, horizon_key, score
from histill.evaluation.sets import patients_and_metrics
from histill.methods.train import runs
from histill.provenance import write_json
from histill.stages import recipe

FEW_EVENTS = 30  # below, a C-index interval spans most of what is plausible
_NOTES = {
    "survival": "Metrics of the test patients are computed for each fold and seed, since risks of different models are "
    "not comparable, then averaged over seeds and folds with equal weights. The C-index is Harrell's; Uno's weighs its "
    "pairs by the inverse probability of censoring (IPCW) until the last horizon. The time-dependent AUC is the "
    "cumulative/dynamic one, its mean over horizons weighted by the events between them. The integrated Brier score is "
    "the mean of the IPCW Brier score from the first to the last horizon. Censoring is that of the training patients "
    "of the fold.",
    "classification": "AUC and average precision (with more than two classes the macro average of one against the "
    "rest), balanced accuracy, macro F1 and Brier score of the test patients are computed for each fold and seed, then "
    "averaged over seeds and folds with equal weights. Average precision rises with the share of a class and is higher "
    "in small folds than in large ones: it compares models on the same patients. The calibration slope is of the test "
    "patients of all folds together.",
}
_INTERVAL_NOTE = (
    " Intervals are percentiles of {draws} bootstrap resamples of patients within folds; the same resamples serve all "
    "models and seeds, so differences are paired. They tell how far another sample of patients could move the number "
    "with the trained models as they are; they do not cover training again on other patients.{repeats} P values of "
    "differences are two-sided: DeLong's for the AUC of two classes where each patient is tested once, else from the "
    "bootstrap; corrected by Holm over the differences of one metric."
)
_REPEATS = " A patient is drawn equally often in every repeat, so repeats do not make intervals narrower."


def run(*, task: str, config: dict[str, Any], results: Path) -> dict[str, Any]:
    """Score every model of a task on its test patients; write `evaluation/<task>.json`, `.tsv` and their receipt.

    Arguments, result and errors are those of `evaluate`.
    """
    results = Path(results)
    report = evaluate(task=task, config=config, results=results)
    table.write(results / "evaluation" / f"{task}.tsv", report)
    write_json(results / "evaluation" / f"{task}.json", report)
    receipts.write(
        results,
        f"evaluation/{task}",
        stage="evaluate",
        task=task,
        recipe=recipe("evaluate", config, task=task),
        predictions=(m.path(results, task, *one) for m in expected_models(config) for one in runs(config, results)),
        suffixes=(".json", ".tsv"),
    )
    return report


def evaluate(*, task: str, config: dict[str, Any], results: Path, models: list[Model] | None = None) -> dict[str, Any]:
    """Score models of a task on its test patients.

    Parameters
    ----------
    task
        Name of a task of the config.
    config
        Complete config (`histill.config.load`).
    results
        Results folder with `cohort/` and the predictions of the models.
    models
        Those that `methods.run` asks for where it is None.

    Returns
    -------
    What `run` writes as JSON; undefined values are None.

    Raises
    ------
    HistillError
        A prediction file is missing, has a value that is not finite, or tests a patient of another fold.
    """
    results = Path(results)
    options, kind, seeds = config["evaluation"], config["tasks"][task]["type"], list(config["seeds"])
    confidence = options["confidence"]
    outcomes = read_outcomes(results, task, kind)
    wanted = expected_models(config) if models is None else models
    read = [read_predictions(results, task, model, outcomes, seeds) for model in wanted]
    _check(read, task)
    definition = Task.from_config(task, config["tasks"][task])
    unit = horizons.unit(definition.columns[0]) if kind == "survival" else ""
    times = horizons.choose(outcomes, options["horizons"], read) if kind == "survival" else Horizons()
    sampling = {"seeds": seeds, "draws": options["bootstrap"], "seed": options["seed"]}
    common = set.intersection(*(model.patients() for model in read))
    own = {model.model.name: score([model], model.patients(), outcomes, **sampling, horizons=times) for model in read}
    paired = score(read, common, outcomes, **sampling, horizons=times) if common else None
    sample, folds = (paired.sample, paired.patients) if paired else (None, {})
    repeats = _REPEATS if outcomes.repeats > 1 else ""
    report = {
        "task": task,
        "type": kind,
        "columns": definition.sources(),
        "classes": list(outcomes.classes),
        "folds": outcomes.folds,
        "repeats": outcomes.repeats,
        "seeds": seeds,
        "bootstrap": options["bootstrap"],
        "confidence": confidence,
        "note": _NOTES[kind] + _INTERVAL_NOTE.format(draws=options["bootstrap"], repeats=repeats),
        "metrics": [vars(metric) for metric in METRICS[kind]],
        "warnings": _warnings(read, common, folds, outcomes) + _left_out(paired, outcomes),
        "models": [
            {"name": m.model.name, "method": m.model.method, "stage": m.model.stage, "inputs": m.model.inputs}
            for m in read
        ],
        "paired": patients_and_metrics(paired, outcomes, confidence),
        "own": {name: patients_and_metrics(scores, outcomes, confidence) for name, scores in own.items()},
        "comparisons": compare(paired, read, outcomes, seeds, confidence),
        "calibration": calibration.calibrate(read, sample, outcomes, times, seeds, confidence, unit),
        "decision_curves": decision_curves.decide(read, sample, outcomes, times, seeds, unit),
        "subgroups": subgroups.describe(read, common, outcomes, config, results, times, sampling),
        "external": external_cohorts(read, outcomes, config, results, times, sampling),
    }
    if kind == "survival":
        report["horizons"] = _at_horizons(paired, times, unit, confidence)
        report["kaplan_meier"] = survival_curves.curves(read, folds, outcomes, seeds, confidence)
    else:
        report["roc"] = roc.curves(read, folds, outcomes, seeds)
    probing = {**sampling, "confidence": confidence}
    return report | _pretrained(results, task, read, outcomes, probing, times if kind == "survival" else None)


def _check(models: list[Predictions], task: str) -> None:
    for model in models:
        if not model.patients():
            raise HistillError(
                f"model '{model.model.name}' of task '{task}' has no test patient with a known outcome",
                mend="check cohort/patients.parquet for patients with the outcome and "
                f"{model.model.inputs}, or take '{model.model.method}' out of methods.run",
            )


def _pretrained(
    results: Path,
    task: str,
    models: list[Predictions],
    outcomes: Outcomes,
    options: dict[str, Any],
    times: Horizons | None,
) -> dict[str, Any]:
    """What only models on pre-trained encoders have: `few_shot` and `alignment`, where their files are."""
    probes = few_shot.run(results, task, models, outcomes, **options, horizons=times)
    aligned = [alignment.run(results, task, model, outcomes, **options) for model in models]
    found = {"note": alignment.NOTE, "models": [entry for entry in aligned if entry]}
    return ({"few_shot": probes} if probes else {}) | ({"alignment": found} if found["models"] else {})


def _at_horizons(paired: Scores | None, times: Horizons, unit: str, confidence: float) -> dict[str, Any]:
    """AUC and Brier score at each horizon, on the patients every model predicted."""
    estimates = paired.estimates if paired else {}
    by_model = {
        name: [
            {"time": t, **{key: own[horizon_key(key, t)].plain(confidence) for key in ("auc", "brier")}}
            for t in times.times
        ]
        for name, own in estimates.items()
    }
    return {"times": list(times.times), "unit": unit, "note": times.note, "models": by_model}


def _warnings(
    models: list[Predictions], common: set[str], folds: dict[int, list[str]], outcomes: Outcomes
) -> list[str]:
    found = []
    if not common:
        found.append("no patient was predicted by every model, so models are not compared")
    elif outcomes.type == "survival":
        events = sum(outcomes.values[patient][1] for patient in common)
        if events < FEW_EVENTS:
            found.append(f"{events} events among the {len(common)} compared patients: intervals will be wide")
    for fold in outcomes.folds:
        values = [outcomes.values[patient] for patient in folds.get(fold, [])]
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


def _left_out(paired: Scores | None, outcomes: Outcomes) -> list[str]:
    """Folds that cannot be scored for a metric beyond those without a comparable pair or a second class."""
    if paired is None or not paired.estimates:
        return []
    primary, *others = METRICS[outcomes.type]
    found = []
    for metric in others:
        folds: dict[int, list[str]] = {}
        for name, by_metric in paired.estimates.items():
            folds_of = by_metric[metric.key].folds if by_metric[metric.key].pooled is None else {}
            for fold, value in folds_of.items():
                if np.isnan(value) and np.isfinite(by_metric[primary.key].folds[fold]):
                    folds.setdefault(fold, []).append(name)
        for fold, names in folds.items():
            whose = "" if len(names) == len(paired.estimates) else f" of {', '.join(names)}"
            found.append(f"fold {fold}: {metric.name}{whose} is not defined; left out")
    return found


def _comparable(values: list[tuple[float, int]]) -> bool:
    if not values:
        return False
    time, event = np.array(values, dtype=np.float64).T
    return bool(metrics.comparable_pairs(event, time).any())

"""Few-shot probes: the same frozen encoders, probed with few labelled patients, beside the probe of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import HistillError
from histill.evaluation.estimates import Estimate
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import (
    MEND_STALE,
    Model,
    Outcomes,
    Predictions,
    check_value,
    describe_folds,
    output_columns,
    read_table,
)
from histill.evaluation.scoring import METRICS, Scores, counts, score
from histill.methods.extras import FEW_SHOT

_MEND = "delete it and run again: snakemake evaluate"
_NOTE = (
    "A probe of k shots is fitted to k training patients a {group}, drawn without replacement, and scored on the test "
    "patients that the probe of all training patients is scored on. Every draw is scored like a seed: the value is the "
    "mean over folds, seeds and draws. Intervals resample test patients within folds, with the same resamples for all "
    "rows; they do not cover the draw. The spread is the standard deviation over draws of their mean over folds."
)
_GROUPS = {"survival": "time bin", "classification": "class"}


@dataclass
class Probes:
    """Test outputs of the few-shot probes of one model.

    Attributes
    ----------
    model
        What was probed.
    test
        Shots -> (fold, seed, draw) -> patient -> risk [1] or class probabilities [C]; known outcomes only.
    """

    model: Model
    test: dict[int, dict[tuple[int, int, int], dict[str, np.ndarray]]] = field(default_factory=dict)

    def draws(self, shots: int, folds: list[int], seeds: list[int]) -> list[int] | None:
        """Draws of a number of shots; None where runs differ in them or a run has none."""
        wanted = [(fold, seed) for fold in folds for seed in seeds]
        runs = [{draw for *run, draw in self.test.get(shots, ()) if tuple(run) == own} for own in wanted]
        return sorted(runs[0]) if runs[0] and all(run == runs[0] for run in runs) else None


def run(
    results: Path,
    task: str,
    models: list[Predictions],
    outcomes: Outcomes,
    *,
    seeds: list[int],
    draws: int,
    seed: int,
    confidence: float,
    horizons: Horizons | None = None,
) -> dict[str, Any] | None:
    """Score the few-shot probes that lie beside the predictions of some models.

    Parameters
    ----------
    models
        Predictions of the models, which are those of the probes of all training patients.
    draws, seed
        Of the bootstrap.
    horizons
        Times at which survival is scored.

    Returns
    -------
    None where no model has few-shot probes. Else `note`, `warnings`, the patients that all these models and all their
    probes predicted (`n`, `events` or `classes`, `folds`), `shots`, and `models`: name -> `full`, metric key ->
    estimate, and `shots`, a list of `shots`, `draws`, `metrics`: metric key -> estimate with `draws` in the place of
    `seeds` and `spread`, the standard deviation over draws (None with one).

    Raises
    ------
    HistillError
        A file is missing that other folds and seeds have, holds a patient of another fold, a patient twice, or a value
        that is not finite.
    """
    probed = [m for m in models if any(_path(results, task, m.model, *run).exists() for run in m.test)]
    if not probed:
        return None
    found = [read_probes(results, task, model, outcomes) for model in probed]
    patients = set.intersection(*(model.patients() for model in probed))
    folds = [fold for fold, tested in outcomes.tested.items() if not patients.isdisjoint(tested)]
    every = sorted(set().union(*(probes.test for probes in found)))
    complete = {shots: [probes.draws(shots, folds, seeds) for probes in found] for shots in every} if folds else {}
    usable = {shots: own for shots, own in complete.items() if None not in own}
    for shots in usable:
        patients &= set.intersection(*(_predicted(probes, shots, outcomes) for probes in found))
    sampling = {"draws": draws, "seed": seed, "horizons": horizons}
    keys = [metric.key for metric in METRICS[outcomes.type]]
    full = score(probed, patients, outcomes, seeds, **sampling)
    entries: dict[str, Any] = {
        name: {"full": {key: by_metric[key].plain(confidence) for key in keys}, "shots": []}
        for name, by_metric in full.estimates.items()
    }
    for shots, own in usable.items():
        for probes, drawn in zip(found, own, strict=True):
            columns = [(number, draw) for number in seeds for draw in drawn]
            scores = _score(probes, shots, columns, patients, outcomes, sampling)
            estimates = scores.estimates[probes.model.name]
            metrics = {key: _plain(estimates[key], columns, confidence) for key in keys}
            entries[probes.model.name]["shots"].append({"shots": shots, "draws": len(drawn), "metrics": metrics})
    return {
        "note": _NOTE.format(group=_GROUPS[outcomes.type]),
        "warnings": _warnings(every, usable),
        **counts(patients, outcomes),
        "folds": [{"fold": fold, **counts(set(members), outcomes)} for fold, members in full.patients.items()],
        "shots": list(usable),
        "models": entries,
    }


def table_rows(report: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(model, `5 shots` or `all`, metric key -> estimate) of what `run` returns, from few to all training patients."""
    return [
        row
        for name, entry in report["models"].items()
        for row in (
            *((name, _said(own["shots"]), own["metrics"]) for own in entry["shots"]),
            (name, "all", entry["full"]),
        )
    ]


def _said(shots: int) -> str:
    return "1 shot" if shots == 1 else f"{shots} shots"


def read_probes(results: Path, task: str, full: Predictions, outcomes: Outcomes) -> Probes:
    """Few-shot probes beside a model's predictions; a missing, leaking or unusable file is an error that names it."""
    probes = Probes(full.model)
    columns = output_columns(outcomes)
    for (fold, seed), tested in full.test.items():
        if tested:  # else there is nothing to probe
            path = _path(results, task, full.model, fold, seed)
            table = read_table(path, ["patient_id", "shots", "draw", *columns], mend=_MEND)
            values = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in columns])
            rows = zip(table["patient_id"], table["shots"], table["draw"], values, strict=True)
            for patient, shots, draw, value in rows:
                if not outcomes.tests(fold, patient):
                    own = describe_folds(outcomes.assignment.get(patient))
                    raise HistillError(
                        f"{path}: patient '{patient}' belongs to {own}, not {fold}; the probe may have been fitted to "
                        "the patient",
                        mend=MEND_STALE,
                    )
                check_value(value, f"{path}: patient '{patient}'", outcomes.type)
                test = probes.test.setdefault(shots, {}).setdefault((fold, seed, draw), {})
                if patient in test:
                    raise HistillError(
                        f"{path}: patient '{patient}' is predicted twice, with {_said(shots)}, draw {draw}", mend=_MEND
                    )
                if patient in outcomes.values:
                    test[patient] = value
    return probes


def _path(results: Path, task: str, model: Model, fold: int, seed: int) -> Path:
    return model.path(results, task, fold, seed).with_name(FEW_SHOT)


def _predicted(probes: Probes, shots: int, outcomes: Outcomes) -> set[str]:
    """Patients that every draw of every seed predicted, in every fold that tests them."""
    runs = probes.test[shots]
    lacking = {p for (fold, _, _), rows in runs.items() for p in outcomes.tested[fold] if p not in rows}
    return set().union(*runs.values()) - lacking


def _score(
    probes: Probes, shots: int, columns: list[tuple[int, int]], patients: set[str], outcomes: Outcomes, sampling: dict
) -> Scores:
    """Scores with each draw of each seed in the place of a seed, numbered as in `columns`."""
    number = {column: place for place, column in enumerate(columns)}
    test = {(fold, number[seed, draw]): rows for (fold, seed, draw), rows in probes.test[shots].items()}
    return score([Predictions(probes.model, test)], patients, outcomes, list(number.values()), **sampling)


def _plain(estimate: Estimate, columns: list[tuple[int, int]], confidence: float) -> dict[str, Any]:
    plain = estimate.plain(confidence)
    values = [entry["value"] for entry in plain.pop("seeds")]
    known = [value for value in values if value is not None]
    return {
        **plain,
        "draws": [
            {"seed": seed, "draw": draw, "value": value} for (seed, draw), value in zip(columns, values, strict=True)
        ],
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def _warnings(every: list[int], usable: dict[int, Any]) -> list[str]:
    return [
        f"few-shot probes of {_said(shots)} are left out: not every fold and seed has the same draws of them"
        for shots in every
        if shots not in usable
    ]

"""External test cohorts: patients no fold trained on, scored by the models of every fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.scoring import score
from histill.evaluation.sets import patients_and_metrics
from histill.evaluation.subgroups import clinical

_NOTE = (
    "Patients of these cohorts were in no training and no validation. The model of every fold is scored on all of "
    "them, and values are means over the folds' models; a resample draws each patient equally often for all of them. "
    "All models that predicted any of a cohort are scored on the patients that all of these predicted. Horizons and "
    "censoring weights are those of the training cohort."
)


def external_cohorts(
    models: list[Predictions],
    outcomes: Outcomes,
    config: dict[str, Any],
    results: Path,
    horizons: Horizons,
    sampling: dict[str, Any],
) -> dict[str, Any] | None:
    """Scores of each external cohort (`folds.external`); arguments as of `histill.evaluation.subgroups.describe`.

    Returns
    -------
    None without external patients. Else `note`, and `cohorts`, a list of `name`, `left_out` (models that predicted
    nobody) and what `patients_and_metrics` has.
    """
    if not outcomes.external:
        return None
    values = outcomes.of_external()
    column = config["folds"]["external"]["column"]
    _, sheet = clinical(config, results)
    cohorts: dict[str, set[str]] = {}
    for patient in outcomes.external:
        cohorts.setdefault(str(sheet.get(patient, {}).get(column, "external")), set()).add(patient)
    tested = [model.of_external() for model in models]
    entries = []
    for name, patients in sorted(cohorts.items()):
        there = [model for model in tested if model.patients() & patients]
        common = set.intersection(patients, *(model.patients() for model in there)) if there else set()
        scores = score(there, common, values, **sampling, horizons=horizons) if common else None
        left_out = [model.model.name for model in tested if model not in there]
        found = patients_and_metrics(scores, values, config["evaluation"]["confidence"])
        entries.append({"name": name, "left_out": left_out, **found})
    return {"note": _NOTE, "cohorts": entries}

"""How models do among the patients of a site, a sex, a stage or a scanner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from histill.cohort.rows import read_rows
from histill.errors import HistillError
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Outcomes, Predictions, read_table
from histill.evaluation.scoring import counts, score
from histill.provenance import read_json

SITE, SCANNER = "site", "scanner"
USUAL = (SITE, "sex", "gender", "stage", SCANNER)
SMALL, FEW = 10, 5  # patients, and events or patients of a second class; below, nothing is estimated
MAX_LEVELS = 40  # a column of more is no grouping
REPORTED = {"survival": ("c_index", "td_auc"), "classification": ("auc", "balanced_accuracy")}
SEVERAL = "several"
_KEY = "evaluation.subgroups"
_NOTE = (
    "Of the patients that every model predicted, those of one level are scored alone, as all of them are: by fold, "
    "with resamples of the level's own patients. Levels of fewer than {small} patients, or than {few} {of}, "
    "are counted and not scored. The study was not planned to compare levels, and many intervals are shown: some "
    "differences between them are chance."
)
_OF = {"survival": "events", "classification": "in each of two classes"}


def describe(
    models: list[Predictions],
    patients: set[str],
    outcomes: Outcomes,
    config: dict[str, Any],
    results: Path,
    horizons: Horizons,
    sampling: dict[str, Any],
) -> dict[str, Any]:
    """Scores of the levels of each column of `evaluation.subgroups`.

    Parameters
    ----------
    patients
        Those that every model predicted.
    sampling
        `seeds`, `draws` and `seed` of `histill.evaluation.scoring.score`.

    Returns
    -------
    `note`, and `columns`, a list of `column`, `missing` (patients without a value) and `levels`: a list of `level`,
    counts, `models` (name -> metric -> estimate) and `small` (whether it is not scored).

    Raises
    ------
    HistillError
        A column that the config names is not there, or has too many values for groups.
    """
    columns = []
    for name, values in _columns(config, results):
        known = {patient: values[patient] for patient in sorted(patients) if values.get(patient)}
        levels = sorted(set(known.values()))
        if len(levels) > MAX_LEVELS and config["evaluation"]["subgroups"]:
            raise HistillError(
                f"column '{name}' has {len(levels)} values among {len(known)} patients, more than {MAX_LEVELS}",
                mend=f"name a column of few values in {_KEY}, or one that groups these",
            )
        if not levels or len(levels) > MAX_LEVELS:
            continue
        groups = {level: {patient for patient, own in known.items() if own == level} for level in levels}
        entries = [
            {"level": level, **_level(models, own, outcomes, config, horizons, sampling)}
            for level, own in groups.items()
        ]
        columns.append({"column": name, "missing": len(patients) - len(known), "levels": entries})
    return {"note": _NOTE.format(small=SMALL, few=FEW, of=_OF[outcomes.type]), "columns": columns}


def _level(
    models: list[Predictions],
    patients: set[str],
    outcomes: Outcomes,
    config: dict[str, Any],
    horizons: Horizons,
    sampling: dict[str, Any],
) -> dict[str, Any]:
    known = counts(patients, outcomes)
    varied = known.get("events", 0) >= FEW or sum(count >= FEW for count in known.get("classes", {}).values()) > 1
    if known["n"] < SMALL or not varied:
        return {**known, "models": {}, "small": True}
    estimates = score(models, patients, outcomes, **sampling, horizons=horizons).estimates
    confidence = config["evaluation"]["confidence"]
    found = {
        name: {key: by_metric[key].plain(confidence) for key in REPORTED[outcomes.type]}
        for name, by_metric in estimates.items()
    }
    return {**known, "models": found, "small": False}


def _columns(config: dict[str, Any], results: Path) -> Iterator[tuple[str, dict[str, str | None]]]:
    """(column, patient -> level) of the columns asked for, or of the usual ones that are there."""
    asked = config["evaluation"]["subgroups"]
    table = read_table(
        results / "cohort" / "patients.parquet", ["patient_id", "slides", SITE], mend="run the stage 'cohort' again"
    )
    header, sheet = clinical(config, results)
    spelt = {name.lower(): name for name in reversed(header)}
    for name in USUAL if asked is None else asked:
        if name == SITE:
            yield name, dict(zip(table["patient_id"], table[SITE], strict=True))
        elif name == SCANNER and SCANNER not in spelt:
            slides = zip(table["patient_id"], table["slides"], strict=True)
            yield name, {patient: _scanner(results, own) for patient, own in slides}
        elif name in header or (asked is None and name in spelt):
            column = name if name in header else spelt[name]
            yield name, {patient: row.get(column) for patient, row in sheet.items()}
        elif asked is not None:
            raise HistillError(
                f"{_KEY}: the clinical sheet has no column '{name}'",
                mend=f"name one of its columns, '{SITE}' or '{SCANNER}': {', '.join(header)}",
            )


def clinical(config: dict[str, Any], results: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Columns of the clinical sheet, and patient -> row; nothing where it is not there any more."""
    path = results / "demo" / "clinical.csv" if "demo" in config else config["cohort"]["clinical"]
    problems: list[str] = []
    header, rows = read_rows(path, problems) if path else ([], [])
    return header, {row["patient_id"]: row for _, row in rows if "patient_id" in row}


def _scanner(results: Path, slides: list[str]) -> str | None:
    """Vendor of a patient's slides as the files say, `several` where they differ; None where none says."""
    paths = [results / "slides" / slide / "slide.json" for slide in slides]
    vendors = {read_json(path).get("vendor") for path in paths if path.exists()} - {None, ""}
    return SEVERAL if len(vendors) > 1 else next(iter(vendors), None)

"""The cohort stage: who has which modality and outcome, and in which fold they are."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from histill.batches import collect
from histill.cohort import folds as splitting
from histill.cohort.assignment import Assignment, assign, stratum
from histill.cohort.sheets import Sheets, strangers
from histill.cohort.tasks import Task
from histill.errors import HistillError
from histill.provenance import OK, Receipt, atomic_file, digest, file_digest, write_json
from histill.software import sign
from histill.stages import recipe


def run(*, sheets: Sheets, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Write `cohort/patients.parquet`, `cohort/folds.json` and the receipt, which is returned."""
    results = Path(results)
    receipts = collect([results / "receipts" / "features.json"])
    slides = _slides_by_patient(receipts, sheets)
    with_rna = _patients_with_rna(results) if sheets.expression else set()
    warnings = _check_ids(slides.keys(), with_rna, sheets)
    patients = sorted(slides.keys() | with_rna | sheets.clinical.rows.keys())
    usable = {patient: sorted(s for s, state in slides.get(patient, {}).items() if state == OK) for patient in patients}

    warnings.extend(_missing_outcomes(usable, sheets))
    assignment = assign(patients, sheets, config["folds"])
    warnings.extend(assignment.warnings)
    sites = sheets.sites()
    table = {
        "patient_id": patients,
        "n_slides": [len(usable[patient]) for patient in patients],
        "slides": [usable[patient] for patient in patients],
        "has_slide": [bool(usable[patient]) for patient in patients],
        "has_rna": [patient in with_rna for patient in patients],
        "site": [sites.get(patient) for patient in patients],
        "fold": [assignment.folds[patient][0] for patient in patients],
    }
    for task in sheets.tasks.values():
        table.update(_labels(task, patients, sheets))
    folds = {
        "n": assignment.n,
        "repeats": assignment.repeats,
        "source": assignment.source,
        "assignment": assignment.folds,
        "sites": assignment.sites,
        "classes": {name: _classes(task, sheets) for name, task in sheets.tasks.items()},
        "validation": {
            name: _validation(task, usable, assignment, sheets, config) for name, task in sheets.tasks.items()
        },
    }
    folder = results / "cohort"
    _write_parquet(folder / "patients.parquet", table)
    write_json(folder / "folds.json", folds)
    receipt = {
        "stage": "cohort",
        "recipe": recipe("cohort", config),
        "outputs": {f"cohort/{name}": file_digest(folder / name) for name in ("patients.parquet", "folds.json")},
        "counts": _counts(table, sheets),
        "warnings": [*sheets.notes, *warnings],
        # What training depends on: a store extracted anew trains anew; a new report title does not, nor do features of
        # another encoder.
        "features": features_digest(receipts, config),
    }
    receipt = sign(results, receipt)
    write_json(results / "receipts" / "cohort.json", receipt)
    return receipt


def features_digest(receipts: list[Receipt], config: dict[str, Any]) -> str:
    """Digest of the stores that methods use, of all slides that have one."""
    return digest({receipt.slide: _store(receipt, config) for receipt in receipts if receipt.state == OK})


def _store(receipt: Receipt, config: dict[str, Any]) -> str | None:
    """Digest of a slide's store that methods use."""
    return receipt.outputs.get(f"features/{config['features']['encoder']}/{receipt.slide}.zarr")


def _slides_by_patient(receipts: list[Receipt], sheets: Sheets) -> dict[str, dict[str, str]]:
    """Patient -> slide -> state. Tables of imported vectors bring their own patients."""
    by_patient: dict[str, dict[str, str]] = {}
    for receipt in receipts:
        slide = sheets.slides.get(receipt.slide)
        patient = slide.patient_id if slide else receipt.info.get("patient_id")
        if patient is None:
            raise HistillError(f"slide {receipt.slide} has no patient", mend="run: snakemake -R features")
        by_patient.setdefault(patient, {})[receipt.slide] = receipt.state
    return by_patient


def _patients_with_rna(results: Path) -> set[str]:
    from histill.transcriptome.stage import patients

    return set(patients(results / "transcriptome" / "expression.h5ad"))


def _check_ids(with_slides: Set[str], with_rna: Set[str], sheets: Sheets) -> list[str]:
    """Warnings about patients that only one source knows.

    Raises
    ------
    HistillError
        When two sources have no patient in common: their ids are written in two ways.
    """
    clinical = sheets.clinical.rows.keys()
    if sheets.tasks and (problem := strangers("slides", with_slides, "the clinical sheet", clinical)):
        raise HistillError(problem, mend="write patient_id in one way everywhere")
    known = with_slides | clinical
    if problem := strangers("the expression table", with_rna, "the sheets", known):
        raise HistillError(
            problem,
            mend="set transcriptome.matrix.patient to tcga for TCGA barcodes, or give the table a column patient_id",
        )
    alone = sorted(with_rna - known)
    warnings = []
    if alone:
        warnings.append(
            f"{len(alone)} of {len(with_rna)} patients of the expression table are in no sheet, such as {alone[0]!r}"
        )
    if with_rna and with_slides and not with_rna & with_slides:
        warnings.append("no patient has both a slide and a transcriptome")
    return warnings


def _missing_outcomes(usable: dict[str, list[str]], sheets: Sheets) -> Iterator[str]:
    """Warnings about classes, or events, that no patient with a usable slide has: no model of slides can learn them."""
    rows = sheets.clinical.rows
    for task in sheets.tasks.values():
        outcomes = {p: label for p, row in rows.items() if (label := task.label(row)) is not None}
        if task.type == "survival":
            outcomes = {patient: "event" for patient, (_, event) in outcomes.items() if event}
        for name in sorted(set(outcomes.values()) - {name for p, name in outcomes.items() if usable.get(p)}):
            what = "no event" if task.type == "survival" else f"no patient of class '{name}'"
            yield f"task '{task.name}': {what} among the patients with a usable slide"


def _labels(task: Task, patients: list[str], sheets: Sheets) -> dict[str, list]:
    labels = [task.label(sheets.clinical.rows.get(patient)) for patient in patients]
    if task.type == "classification":
        return {f"label:{task.name}": labels}
    times = [None if label is None else label[0] for label in labels]
    return {f"time:{task.name}": times, f"event:{task.name}": [None if label is None else label[1] for label in labels]}


def _classes(task: Task, sheets: Sheets) -> list[str]:
    if task.type != "classification":
        return []
    return sorted({label for row in sheets.clinical.rows.values() if (label := task.label(row)) is not None})


def _validation(
    task: Task, usable: dict[str, list[str]], assignment: Assignment, sheets: Sheets, config: dict[str, Any]
) -> dict[str, list[str]]:
    """Inner validation patients by fold, drawn from labelled training patients with a slide."""
    chosen = {}
    for fold in range(assignment.n):
        training = [
            patient
            for patient in assignment.training(fold)
            if usable[patient] and task.label(sheets.clinical.rows.get(patient)) is not None
        ]
        chosen[str(fold)] = splitting.inner_split(
            training,
            [stratum(patient, [task], sheets) for patient in training],
            fraction=config["training"]["validation_fraction"],
            seed=config["folds"]["seed"] + fold,
        )
    return chosen


def _counts(table: dict[str, list], sheets: Sheets) -> dict[str, int]:
    both = [slide and rna for slide, rna in zip(table["has_slide"], table["has_rna"], strict=True)]
    counts = {
        "patients": len(both),
        "slides": sum(table["n_slides"]),
        "with_slide": sum(table["has_slide"]),
        "with_rna": sum(table["has_rna"]),
        "with_both": sum(both),
        "with_neither": sum(not (s or r) for s, r in zip(table["has_slide"], table["has_rna"], strict=True)),
    }
    for task in sheets.tasks.values():
        column = table[f"label:{task.name}" if task.type == "classification" else f"time:{task.name}"]
        covered = [task.covers(sheets.clinical.rows.get(patient, {})) for patient in table["patient_id"]]
        counts[f"without_outcome:{task.name}"] = sum(
            own and value is None for own, value in zip(covered, column, strict=True)
        )
    return counts


def _write_parquet(path: Path, table: dict[str, list]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"slides": pa.list_(pa.string()), "site": pa.string()}
    arrays = {}
    for name, values in table.items():
        kind = types.get(name)
        if name.startswith("label:"):
            kind = pa.string()
        elif name.startswith("time:"):
            kind = pa.float64()
        elif name.startswith("event:"):
            kind = pa.int8()
        arrays[name] = pa.array(values, type=kind)
    with atomic_file(path) as part:
        pq.write_table(pa.table(arrays), part)

"""Published folds: a sheet with the columns patient_id and fold, or a folder of split lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from histill.cohort import split_lists
from histill.cohort.rows import read_rows
from histill.cohort.sheets import Sheets
from histill.cohort.tasks import Task

NUMBER = re.compile(r"([0-9]{1,4})([.]0+)?")  # pandas writes whole numbers as 1.0 where a cell of the column is empty


def files(path: str | Path) -> list[str]:
    """The sheet, or the lists of a folder: what is read."""
    return [str(own) for own in split_lists.files(path)] if Path(path).is_dir() else [str(path)]


def read(path: str | Path, problems: list[str], patients: Set[str] = frozenset()) -> dict[str, int]:
    """Fold of every patient of the file or folder; `problems` gets a line for each row that cannot be used.

    `patients` are those of the cohort: split lists name some of them by their slides (see `split_lists`).
    """
    if Path(path).is_dir():
        return split_lists.read(path, problems, patients)
    header, rows = read_rows(path, problems)
    problems.extend(
        f"{path}: has no column '{name}'" for name in ("patient_id", "fold") if header and name not in header
    )
    folds: dict[str, int] = {}
    for line, row in rows if not problems else ():
        patient, fold = row.get("patient_id"), row.get("fold", "")
        number = NUMBER.fullmatch(fold)
        if patient is None:
            problems.append(f"{path}, line {line}: 'patient_id' is empty")
        elif not fold and patients and patient not in patients:
            continue  # external, or of no interest
        elif number is None:
            problems.append(f"{path}, line {line}: fold {fold!r} of patient '{patient}' is no whole number from 0")
        elif folds.setdefault(patient, int(number[1])) != int(number[1]):
            problems.append(f"{path}, line {line}: patient '{patient}' is in fold {folds[patient]} and in fold {fold}")
    return folds


def check(path: str | Path, folds: dict[str, int], patients: Iterable[str], labelled: set[str]) -> Iterator[str]:
    """Problems of published folds for a cohort: patients without one, and numbers left out.

    Parameters
    ----------
    patients
        Patients of the cohort.
    labelled
        Those with an outcome; each of them must be in the file.
    """
    missing = sorted(patient for patient in labelled if patient not in folds)
    if missing:
        named = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        yield f"{path}: {len(missing)} patients with an outcome have no fold: {named}"
    used = sorted({folds[patient] for patient in patients if patient in folds})
    if used != list(range(len(used))):
        yield f"{path}: folds must be numbered 0, 1, 2, ...; the cohort's patients are in {used}"
    elif len(used) == 1 and labelled:
        yield f"{path}: all patients are in fold 0, which leaves none to train on; two folds are the least"


def holes(folds: dict[str, int], sheets: Sheets) -> tuple[list[str], list[str]]:
    """(problems, notes): folds whose other patients cannot teach a task, and folds that cannot score one."""
    problems, notes = [], []
    for task in sheets.tasks.values():
        outcomes = _outcomes(task, sheets, folds)
        wanted = {1} if task.type == "survival" else {outcome for _, outcome in outcomes}
        for fold in sorted({number for number, _ in outcomes}):
            test = {outcome for number, outcome in outcomes if number == fold}
            training = {outcome for number, outcome in outcomes if number != fold}
            lost = sorted(map(str, wanted - training))
            what = "event" if task.type == "survival" else f"patient of class {', '.join(map(repr, lost))}"
            if lost:
                problems.append(f"task '{task.name}': outside fold {fold} there is no {what} to train on")
            elif task.type == "survival" and not test & wanted:
                notes.append(f"task '{task.name}': fold {fold} has no event, so its concordance cannot be computed")
            elif task.type == "classification" and len(test) < 2:
                notes.append(f"task '{task.name}': fold {fold} has one class only, so its AUC cannot be computed")
    return problems, notes


def _outcomes(task: Task, sheets: Sheets, folds: dict[str, int]) -> set[tuple[int, str | int]]:
    """Pairs of fold and class name, or of fold and event indicator, that occur."""
    labels = ((folds.get(patient), task.label(row)) for patient, row in sheets.clinical.rows.items())
    return {
        (fold, label[1] if task.type == "survival" else label)
        for fold, label in labels
        if fold is not None and label is not None
    }

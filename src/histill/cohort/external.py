"""External test cohorts: patients of the clinical sheet that are only tested, by the models of every fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from histill.cohort.sheets import Clinical, Sheets
from histill.cohort.tasks import Task, same_cell

MAX_NAMED = 10


def patients(clinical: Clinical, options: dict[str, Any] | None) -> set[str]:
    """Patients whose cell of `folds.external.column` holds one of `folds.external.values`; none without the option."""
    if options is None:
        return set()
    column, values = options["column"], options["values"]
    return {
        patient
        for patient, row in clinical.rows.items()
        if column in row and any(same_cell(row[column], value) for value in values)
    }


def internal(clinical: Clinical, options: dict[str, Any] | None) -> Clinical:
    """The rows of all others."""
    external = patients(clinical, options)
    return replace(clinical, rows={patient: row for patient, row in clinical.rows.items() if patient not in external})


def check(sheets: Sheets, options: dict[str, Any] | None, *, folds: int) -> Iterator[str]:
    """What is wrong with the external cohort of a config, one line a problem.

    Parameters
    ----------
    folds
        Of one repeat: what is left must fill them.
    """
    if options is None:
        return
    clinical, column = sheets.clinical, options["column"]
    if column not in clinical.columns:
        named = ", ".join(clinical.columns) or "none"
        yield f"config key 'folds.external': the clinical sheet has no column '{column}'; its columns are {named}"
        return
    cells = sorted({row[column] for row in clinical.rows.values() if column in row})
    for value in options["values"]:
        if not any(same_cell(cell, value) for cell in cells):
            held = ", ".join(cells[:MAX_NAMED]) + (", ..." if len(cells) > MAX_NAMED else "")
            yield (
                f"config key 'folds.external': no patient has {value!r} in column '{column}'; it holds "
                f"{held or 'no value'}"
            )
    rest = internal(clinical, options)
    if not rest.rows:
        yield "config key 'folds.external': every patient is external, which leaves none to train on"
        return
    for task in sheets.tasks.values():
        for problem in task.check(rest, folds):
            yield f"without the external cohort ('folds.external'), {problem}"
        yield from _new_classes(task, clinical, rest)


def _new_classes(task: Task, clinical: Clinical, rest: Clinical) -> Iterator[str]:
    if task.type != "classification":
        return
    known = {task.label(row) for row in rest.rows.values()}
    found = {task.label(row) for patient, row in clinical.rows.items() if patient not in rest.rows}
    for name in sorted(found - known - {None}):
        yield (
            f"{clinical.path}: task '{task.name}': class '{name}' is of external patients only, so no model can learn "
            "it; empty those cells, or merge it"
        )

"""What can be said of the folds before anything runs: how many there are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from histill.cohort import external, fold_file
from histill.cohort.sheets import Sheets

MAX_NAMED = 10


def count(config: dict[str, Any], sheets: Sheets) -> int:
    """Number of folds over all repeats: of the config, or of its file of published folds."""
    options = config["folds"]
    if not options["file"]:
        return options["n"] * options["repeats"]
    patients = _tested(config, sheets)
    folds = fold_file.read(options["file"], [], patients)
    return 1 + max((fold for patient, fold in folds.items() if patient in patients), default=0)


def check(config: dict[str, Any], sheets: Sheets) -> list[str]:
    """Problems of the config's folds with checked sheets; what is no problem and worth saying goes to their notes."""
    options = config["folds"]
    problems = list(external.check(sheets, options["external"], folds=options["n"]))
    if apart := external.patients(sheets.clinical, options["external"]):
        sheets.notes.append(f"{len(apart)} patients are external: tested by every fold's models, trained on by none")
        rows = [sheets.clinical.rows[patient] for patient in apart]
        sheets.notes.extend(
            f"task '{task.name}': no external patient has an outcome, so none is scored"
            for task in sheets.tasks.values()
            if all(task.label(row) is None for row in rows)
        )
    if options["file"]:
        problems += _conflicts(options) or _check_file(config, sheets)
    elif options["sites"] == "preserve":
        problems += _check_sites(config, sheets)
    return problems


def without_site(sites: dict[str, str], patients: set[str]) -> list[str]:
    """The problem of patients with an outcome that no site is known of, if there are any."""
    missing = sorted(patients - sites.keys())
    if not missing:
        return []
    named = ", ".join(missing[:MAX_NAMED]) + (", ..." if len(missing) > MAX_NAMED else "")
    return [
        f"folds.sites: preserve: {len(missing)} patients with an outcome have no site: {named}; write it in a column "
        "'site' of the clinical sheet or of the slide sheet (of TCGA barcodes the second part is the site), or set "
        "folds.sites: ignore"
    ]


def _tested(config: dict[str, Any], sheets: Sheets) -> set[str]:
    """Patients of the sheets that are in folds."""
    return sheets.patients() - external.patients(sheets.clinical, config["folds"]["external"])


def _labelled(config: dict[str, Any], sheets: Sheets) -> set[str]:
    """Those that have an outcome."""
    rows, tasks = sheets.clinical.rows, sheets.tasks.values()
    return {p for p in _tested(config, sheets) if any(task.label(rows.get(p)) is not None for task in tasks)}


def _conflicts(options: dict[str, Any]) -> list[str]:
    """Keys that say how to make folds, beside a file that has them."""
    asked = {"repeats": options["repeats"] != 1, "sites": options["sites"] != "ignore"}
    return [
        f"config key 'folds.{key}': the folds are published ones (folds.file); leave {key} out"
        for key, given in asked.items()
        if given
    ]


def _check_file(config: dict[str, Any], sheets: Sheets) -> list[str]:
    path, patients = config["folds"]["file"], _tested(config, sheets)
    problems: list[str] = []
    folds = fold_file.read(path, problems, patients)
    problems = problems or list(fold_file.check(path, folds, patients, _labelled(config, sheets)))
    if problems:
        return problems
    holes, notes = fold_file.holes({patient: folds[patient] for patient in patients & folds.keys()}, sheets)
    sheets.notes.extend(f"{path}: {note}" for note in notes)
    return [f"{path}: {hole}" for hole in holes]


def _check_sites(config: dict[str, Any], sheets: Sheets) -> Iterator[str]:
    sites, n = sheets.sites(), config["folds"]["n"]
    yield from without_site(sites, _labelled(config, sheets))
    known = {sites[patient] for patient in _tested(config, sheets) & sites.keys()}
    spelled: dict[str, list[str]] = {}
    for site in sorted(known):
        spelled.setdefault("".join(site.split()).casefold(), []).append(site)
    for same in spelled.values():
        if len(same) > 1:
            yield (
                f"folds.sites: preserve: sites {', '.join(map(repr, same))} differ only in case and blanks, and would "
                "be parted; write them in one way"
            )
    if len(known) < n:
        yield f"config key 'folds.sites': preserve: {n} folds need as many sites; there are {len(known)}"

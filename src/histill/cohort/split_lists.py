"""Published split lists: a folder with a file a fold, which names the patients to train on and to test."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Set
from pathlib import Path

from histill.cohort.rows import read_rows

FILE = re.compile(r"splits_([0-9]{1,4})[.]csv")
TRAIN, VALIDATION, TEST = "train", "val", "test"
BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")  # of a TCGA patient; names of samples and slides begin with it
MAX_NAMED = 10

Lists = dict[str, set[str]]


def files(folder: str | Path) -> list[Path]:
    """The folder's `splits_0.csv`, `splits_1.csv` and so on, by number; other files do not count."""
    numbered = {path: FILE.fullmatch(path.name) for path in Path(folder).iterdir()}
    return sorted((path for path, match in numbered.items() if match), key=lambda path: int(numbered[path][1]))


def read(folder: str | Path, problems: list[str], patients: Set[str] = frozenset()) -> dict[str, int]:
    """Fold of every patient that is held out; `problems` gets a line for everything that forbids the lists.

    A file has the columns `train` and `val`, and may have `test`; cells below the shorter lists are empty. A fold's
    held-out patients are those of `test` where the files name any, else those of `val`. (With `test`, those of `val`
    count as training patients: histill draws its own for model selection.) Where the cohort's patients are TCGA
    barcodes, names of slides and samples stand for their patients.

    Refused are lists that leak (a patient to train on and held out in one fold, or held out in two), and those that
    would not be followed: a patient of the cohort that is never held out, or that a fold does not name.

    Parameters
    ----------
    patients
        Of the cohort; without them, the last two are not looked for.
    """
    paths = files(folder)
    if [path.name for path in paths] != [f"splits_{number}.csv" for number in range(len(paths))] or len(paths) < 2:
        found = ", ".join(path.name for path in paths) or "none"
        problems.append(
            f"{folder}: published lists are splits_0.csv, splits_1.csv, ..., two or more; here are: {found}"
        )
        return {}
    lists = [_read_lists(path, problems, patients) for path in paths]
    if problems:
        return {}
    held = TEST if any(own[TEST] for own in lists) else VALIDATION
    for path, own in zip(paths, lists, strict=True):
        problems.extend(_check_file(path, own, held))
    problems.extend(_check_folder(folder, paths, lists, held, patients))
    return {patient: fold for fold, own in enumerate(lists) for patient in sorted(own[held])}


def _read_lists(path: Path, problems: list[str], patients: Set[str]) -> Lists:
    header, rows = read_rows(path, problems)
    problems.extend(f"{path}: has no column '{name}'" for name in (TRAIN, VALIDATION) if header and name not in header)
    tcga = any(BARCODE.fullmatch(patient) for patient in patients)

    def patient(name: str) -> str:
        barcode = BARCODE.match(name) if tcga and name not in patients else None
        return barcode[0] if barcode else name

    return {column: {patient(row[column]) for _, row in rows if column in row} for column in (TRAIN, VALIDATION, TEST)}


def _check_file(path: Path, lists: Lists, held: str) -> Iterator[str]:
    """Problems of one fold."""
    if not lists[held]:
        yield f"{path}: column '{held}' names no patient, so the fold tests none"
    if not lists[TRAIN]:
        yield f"{path}: column '{TRAIN}' names no patient, so the fold trains on none"
    for first, second in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
        if both := lists[first] & lists[second]:
            yield f"{path}: {_named(both)} in '{first}' and in '{second}', which leaks; take them out of one"


def _check_folder(
    folder: str | Path, paths: list[Path], lists: list[Lists], held: str, patients: Set[str]
) -> Iterator[str]:
    """Problems of the folds together."""
    first: dict[str, Path] = {}
    for path, own in zip(paths, lists, strict=True):
        if again := own[held] & first.keys():
            others = ", ".join(sorted({first[patient].name for patient in again}))
            yield f"{path}: {_named(again)} in '{held}' here and in {others}; a patient is held out in one fold"
        first |= dict.fromkeys(own[held] - first.keys(), path)
    listed = [set().union(*own.values()) & patients for own in lists]
    if never := set().union(*listed) - first.keys():
        yield (
            f"{folder}: {_named(never)} in no '{held}', so never tested; are all lists here? If so, put them in one "
            f"'{held}', or take them out of all lists, for a patient in no fold"
        )
    for path, own in zip(paths, listed, strict=True):
        if left_out := (first.keys() & patients) - own:
            yield (
                f"{path}: {_named(left_out)} not listed; a fold trains on all patients that it does not hold out: put "
                f"them in '{TRAIN}'"
            )


def _named(patients: Collection[str]) -> str:
    """'2 patients (P1, P2)', with up to ten of them."""
    names = sorted(patients)
    more = ", ..." if len(names) > MAX_NAMED else ""
    return f"{len(names)} patient{'s' if len(names) > 1 else ''} ({', '.join(names[:MAX_NAMED])}{more})"

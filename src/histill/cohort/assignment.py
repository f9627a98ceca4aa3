"""Who is tested in which fold: repeated partitions of the patients, published folds, and the external cohort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from histill.cohort import external, fold_checks, fold_file, folds, preserved_sites
from histill.cohort.folds import EXTERNAL, OUTSIDE
from histill.cohort.sheets import Sheets
from histill.cohort.tasks import Task
from histill.errors import ConfigError


@dataclass
class Assignment:
    """Folds of all repeats.

    Attributes
    ----------
    n
        Number of folds over all repeats; those of a repeat follow one another.
    folds
        Patient -> fold in which the patient is tested, one a repeat; -1 in no fold, -2 external.
    source
        Where they come from, for readers.
    sites
        Of folds that preserve sites: for each repeat `imbalance` and `optimal`
        (`histill.cohort.preserved_sites.Partition`), and `folds`, what is in each. None for others.
    """

    n: int
    repeats: int
    folds: dict[str, list[int]]
    source: str
    sites: list[dict[str, Any]] | None = None
    warnings: list[str] = field(default_factory=list)

    def training(self, fold: int) -> list[str]:
        """Patients of the same repeat that are tested in another fold."""
        repeat = fold * self.repeats // self.n
        return [patient for patient, own in self.folds.items() if own[repeat] not in (fold, OUTSIDE, EXTERNAL)]


def assign(patients: list[str], sheets: Sheets, options: dict[str, Any]) -> Assignment:
    """The folds that a config's `folds` asks for.

    Parameters
    ----------
    patients
        Of the cohort, sorted.

    Raises
    ------
    ConfigError
        Published folds do not fit the cohort; patients have no site, or sites leave a fold nothing to train on.
    """
    apart = external.patients(sheets.clinical, options["external"]) & set(patients)
    own = [patient for patient in patients if patient not in apart]
    if options["file"]:
        made = _published(own, sheets, options)
    elif options["sites"] == "preserve":
        made = _preserved(own, sheets, options)
    else:
        made = _stratified(own, sheets, options)
    made.warnings += _same_again(made)
    made.folds = {patient: made.folds.get(patient, [EXTERNAL] * made.repeats) for patient in patients}
    if apart:
        made.source += f"; {len(apart)} external patients by {options['external']['column']}"
    return made


def stratum(patient: str, tasks: list[Task], sheets: Sheets) -> str:
    """Class names and event indicators of the tasks, joined."""
    parts = []
    for task in tasks:
        label = task.label(sheets.clinical.rows.get(patient))
        parts.append("none" if label is None else label if task.type == "classification" else f"event{label[1]}")
    return "|".join(map(str, parts))


def _published(patients: list[str], sheets: Sheets, options: dict[str, Any]) -> Assignment:
    found = folds.from_file(options["file"], patients, labelled=_labelled(patients, sheets))
    n = max(found.values(), default=-1) + 1
    return Assignment(n, 1, {patient: [fold] for patient, fold in found.items()}, options["file"])


def _stratified(patients: list[str], sheets: Sheets, options: dict[str, Any]) -> Assignment:
    n, seed, repeats = options["n"], options["seed"], options["repeats"]
    tasks = list(sheets.tasks.values())
    strata = [stratum(patient, tasks, sheets) for patient in patients]
    made = [folds.assign(patients, strata, n=n, seed=seed, repeat=repeat) for repeat in range(repeats)]
    # A cohort of fewer patients than folds has fewer folds.
    n = max((fold for own in made for fold in own.values()), default=-1) + 1
    return Assignment(n * repeats, repeats, _numbered(patients, made, n), f"stratified by outcome{_by(options)}")


def _preserved(patients: list[str], sheets: Sheets, options: dict[str, Any]) -> Assignment:
    n, repeats = options["n"], options["repeats"]
    sites = sheets.sites()
    if problems := fold_checks.without_site(sites, _labelled(patients, sheets)):
        raise ConfigError(problems)
    site = {patient: sites[patient] for patient in patients if patient in sites}
    outcomes = {patient: list(_outcomes(patient, sheets)) for patient in site}
    found = preserved_sites.partitions(site, outcomes, n=n, seed=options["seed"], repeats=repeats)
    warnings, described = [], []
    for repeat, partition in enumerate(found):
        own = preserved_sites.describe(partition, site, outcomes, first=repeat * n)
        warnings += preserved_sites.warnings(own, site, n=n)
        described.append({"imbalance": partition.imbalance, "optimal": partition.optimal, "folds": own})
        numbers = {patient: repeat * n + partition.fold[name] for patient, name in site.items()}
        problems, notes = fold_file.holes(numbers, sheets)
        warnings += notes
        if problems:
            raise ConfigError([f"folds.sites: preserve: {problem}; lower folds.n" for problem in problems])
    if without := len(patients) - len(site):
        warnings.append(f"{without} patients without an outcome and without a site are in no fold")
    # A patient without a site has none in any repeat.
    made = [{p: partition.fold[site[p]] if p in site else OUTSIDE for p in patients} for partition in found]
    source = f"sites preserved, outcomes balanced{_by(options)}"
    return Assignment(
        n * repeats, repeats, _numbered(patients, made, n), source, described, list(dict.fromkeys(warnings))
    )


def _same_again(made: Assignment) -> list[str]:
    """Whether repeats are the same partition, which few patients or few sites have few of."""
    different = set()
    for repeat in range(made.repeats):
        parts: dict[int, set[str]] = {}
        for patient, own in made.folds.items():
            parts.setdefault(own[repeat], set()).add(patient)
        different.add(frozenset(map(frozenset, parts.values())))
    if len(different) == made.repeats:
        return []
    return [
        f"only {len(different)} of {made.repeats} repeats of the folds differ: the others train and test the same "
        "patients again; lower folds.repeats"
    ]


def _numbered(patients: list[str], made: list[dict[str, int]], n: int) -> dict[str, list[int]]:
    """Folds 0 to n - 1 of every repeat as numbers over all repeats."""
    return {
        patient: [repeat * n + own[patient] if own[patient] != OUTSIDE else OUTSIDE for repeat, own in enumerate(made)]
        for patient in patients
    }


def _by(options: dict[str, Any]) -> str:
    repeats = f", {options['repeats']} repeats" if options["repeats"] > 1 else ""
    return f", seed {options['seed']}{repeats}"


def _labelled(patients: list[str], sheets: Sheets) -> set[str]:
    rows, tasks = sheets.clinical.rows, sheets.tasks.values()
    return {patient for patient in patients if any(task.label(rows.get(patient)) is not None for task in tasks)}


def _outcomes(patient: str, sheets: Sheets) -> Iterator[str]:
    """What is to be even over the folds: `dx: tumour`, `os: event`."""
    for task in sheets.tasks.values():
        label = task.label(sheets.clinical.rows.get(patient))
        if label is not None:
            name = label if task.type == "classification" else ("censored", "event")[label[1]]
            yield f"{task.name}: {name}"

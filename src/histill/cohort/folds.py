"""Folds on patients: stratified, or published ones from a file; and the inner split for model selection.

What a patient's number is in place of a fold: -1 in no fold (never trained on and never scored, but predicted), -2
external (never trained on, scored by the models of every fold).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histill.cohort import fold_file
from histill.errors import ConfigError

OUTSIDE, EXTERNAL = -1, -2


def generator_of(seed: int, repeat: int) -> np.random.Generator:
    """Random numbers of a repeat of the partition."""
    return np.random.default_rng([seed, repeat] if repeat else seed)


def assign(patients: list[str], strata: list[str], *, n: int, seed: int, repeat: int = 0) -> dict[str, int]:
    """Fold 0..n-1 of every patient, each stratum spread evenly.

    Parameters
    ----------
    patients
        Unique ids; their order does not matter.
    strata
        What to balance, one text a patient (labels joined; 'none' without an outcome).
    """
    generator = generator_of(seed, repeat)
    order = generator.permutation(len(patients))
    ids = sorted(zip(patients, strata, strict=True))
    shuffled = sorted((ids[index] for index in order), key=lambda pair: pair[1])
    # Dealing the strata one after the other keeps fold sizes and every stratum's shares within one patient.
    return dict(sorted((patient, position % n) for position, (patient, _) in enumerate(shuffled)))


def from_file(path: str | Path, patients: list[str], *, labelled: set[str]) -> dict[str, int]:
    """Published folds: a sheet with the columns `patient_id` and `fold` (whole numbers from 0), or a folder of lists.

    Every patient with an outcome must be there; one without that is not there is in no fold (-1).
    """
    problems: list[str] = []
    folds = fold_file.read(path, problems, set(patients))
    problems = problems or list(fold_file.check(path, folds, patients, labelled))
    if problems:
        raise ConfigError(problems)
    return {patient: folds.get(patient, OUTSIDE) for patient in sorted(patients)}


def inner_split(patients: list[str], strata: list[str], *, fraction: float, seed: int) -> list[str]:
    """Patients held out of a training fold for model selection: `fraction` of each stratum, at least one in all."""
    if len(patients) < 2:
        return []
    generator = np.random.default_rng(seed)
    held: list[str] = []
    pairs = sorted(zip(patients, strata, strict=True))
    for stratum in sorted(set(strata)):
        members = [patient for patient, own in pairs if own == stratum]
        count = len(members) * fraction
        whole = int(count) + int(generator.random() < count - int(count))
        held.extend(members[index] for index in generator.permutation(len(members))[:whole])
    if not held:
        held.append(pairs[int(generator.integers(len(pairs)))][0])
    return sorted(held)

"""What a patient is to the models of a fold: over repeats, outside all folds, in the external cohort."""

from __future__ import annotations

import pytest

from histill.cohort import folds as numbers
from histill.cohort.tasks import Task
from histill.data.bags import BagReader
from histill.data.fold import EXTERNAL, TEST, TRAIN, UNLABELLED, VALIDATION, Cohort

TASK = Task("dx", "classification", ("dx",))
PATIENTS = [f"P{index:02}" for index in range(12)]


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    """Two repeats of three folds; P09 is in no fold, P10 and P11 are external, P00 has no label."""
    assignment = {p: [index % 3, 3 + index // 3 % 3] for index, p in enumerate(PATIENTS)}
    assignment["P09"] = [numbers.OUTSIDE] * 2
    assignment |= {patient: [numbers.EXTERNAL] * 2 for patient in ("P10", "P11")}
    columns = {
        "patient_id": PATIENTS,
        "has_slide": [True] * 12,
        "has_rna": [True] * 12,
        "label:dx": [None, *"ababababaab"],
    }
    validation = {str(fold): ["P05"] if fold != 2 else ["P04"] for fold in range(6)}
    folds = {"n": 6, "repeats": 2, "assignment": assignment, "validation": {"dx": validation}}
    return Cohort(columns, folds, BagReader(tmp_path, {}))


def test_training_patients_are_tested_in_another_fold_of_the_same_repeat(cohort):
    def select(fold, split):
        return cohort.select(TASK, fold, split, slide=True, rna=True)

    assert select(0, TEST) == ["P03", "P06"]
    assert select(0, VALIDATION) == ["P05"]
    assert select(0, TRAIN) == ["P01", "P02", "P04", "P07", "P08"]
    assert select(4, TEST) == ["P03", "P04", "P05"]
    assert select(4, VALIDATION) == []  # the one there is, is tested
    assert select(4, TRAIN) == ["P01", "P02", "P06", "P07", "P08"]
    for fold in range(6):
        assert select(fold, EXTERNAL) == ["P10", "P11"]
        assert select(fold, UNLABELLED) == ["P00", "P09"]


def test_an_external_patient_without_an_outcome_is_unlabelled(cohort):
    cohort.patients["label:dx"][11] = None
    assert cohort.split(TASK, 0, "P11") == UNLABELLED


def test_pre_training_sees_neither_tested_nor_external_patients(cohort):
    for fold in range(6):
        seen = {
            patient
            for split in (TRAIN, VALIDATION)
            for patient in cohort.select_unlabelled(fold, split, share=0.2, slide=True, rna=True)
        }
        tested = {patient for patient in PATIENTS if fold in cohort.folds["assignment"][patient]}
        assert seen == set(PATIENTS[:9]) - tested


def test_transcriptomes_are_hidden_of_training_patients_alone(cohort):
    for fold in (1, 5):
        hidden = cohort.without_rna(fold, 1.0, seed=0)
        kept = {patient for patient in PATIENTS if hidden.value(patient, "has_rna")}
        assert kept == {patient for patient in PATIENTS if fold in cohort.folds["assignment"][patient]} | {"P10", "P11"}

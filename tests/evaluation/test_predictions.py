"""What is read of prediction files: repeats, the external cohort, predicted survival."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.evaluation.predictions import Model, read_outcomes, read_predictions

TASK = "os"
MODEL = Model("linear-slide", "train")
PATIENTS = [f"P{index}" for index in range(12)]
ASSIGNMENT = {p: [index % 2, 2 + index // 2 % 2] for index, p in enumerate(PATIENTS)} | {
    "P10": [-2, -2],
    "P11": [-1, -1],
}


def split(patient: str, fold: int) -> str:
    own = ASSIGNMENT[patient]
    if patient in ("P8", "P11"):  # without an outcome, in no fold
        return "unlabelled"
    return "external" if own[0] == -2 else "test" if fold in own else "train"


@pytest.fixture
def results(tmp_path):
    """Two repeats of two folds, one external patient, one in no fold, one without an outcome."""
    (tmp_path / "cohort").mkdir()
    known = [patient != "P8" for patient in PATIENTS]
    table = {
        "patient_id": PATIENTS,
        "time:os": [float(index + 1) if own else None for index, own in enumerate(known)],
        "event:os": [index % 2 if own else None for index, own in enumerate(known)],
    }
    pq.write_table(pa.table(table), tmp_path / "cohort" / "patients.parquet")
    folds = {"n": 4, "repeats": 2, "assignment": ASSIGNMENT, "classes": {}}
    (tmp_path / "cohort" / "folds.json").write_text(json.dumps(folds))
    for fold in range(4):
        write(tmp_path, fold)
    return tmp_path


def write(results, fold, **changes):
    """The file of a fold; `changes` maps columns to row -> value."""
    table = {
        "patient_id": list(PATIENTS),
        "split": [split(patient, fold) for patient in PATIENTS],
        "modalities": ["slide"] * 12,
        "risk": [100.0 * fold + index for index in range(12)],
        "s:24.5": [0.4] * 12,
        "s:6.0": [0.9 - 0.01 * index for index in range(12)],
    }
    for column, cells in changes.items():
        for row, value in cells.items():
            table[column][row] = value
    path = MODEL.path(results, TASK, fold, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def read(results):
    outcomes = read_outcomes(results, TASK, "survival")
    return outcomes, read_predictions(results, TASK, MODEL, outcomes, [0])


def test_every_patient_is_tested_once_a_repeat(results):
    outcomes, predictions = read(results)
    assert (outcomes.folds, outcomes.repeats) == ([0, 1, 2, 3], 2)
    assert outcomes.tested[0] == ["P0", "P2", "P4", "P6"]  # P8 has no outcome
    assert outcomes.tested[3] == ["P2", "P3", "P6", "P7"]
    assert {fold: sorted(rows) for (fold, _), rows in predictions.test.items()} == outcomes.tested
    assert predictions.test[3, 0]["P7"] == [307.0]
    assert predictions.patients() == {f"P{index}" for index in (0, 1, 2, 3, 4, 5, 6, 7, 9)}


def test_a_patient_that_one_repeat_lacks_is_not_scored(results):
    path = MODEL.path(results, TASK, 3, 0)
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.compute.not_equal(table["patient_id"], "P7")), path)
    _, predictions = read(results)
    assert "P7" not in predictions.patients()
    assert "P7" in predictions.test[1, 0]


def test_external_patients_are_tested_by_every_fold(results):
    outcomes, predictions = read(results)
    assert outcomes.external == ["P10"]
    apart, own = outcomes.of_external(), predictions.of_external()
    assert apart.tested == {fold: ["P10"] for fold in range(4)}
    assert own.patients() == {"P10"}
    assert [own.test[fold, 0]["P10"].item() for fold in range(4)] == [10.0, 110.0, 210.0, 310.0]
    assert predictions.patients().isdisjoint(own.patients())


def test_predicted_survival_comes_by_time(results):
    _, predictions = read(results)
    curves = predictions.survival[1, 0]
    assert curves.times.tolist() == [6.0, 24.5]
    assert sorted(curves.values) == ["P1", "P10", "P3", "P5", "P7", "P9"]
    np.testing.assert_allclose(curves.values["P3"], [0.87, 0.4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {0: "train"}}, "patient 'P0' is in its train split but is to be tested in fold 2"),
        ({"split": {10: "validation"}}, "patient 'P10' is in its validation split but is an external patient"),
        ({"split": {2: "test"}}, "patient 'P2' is in its test split but belongs to folds 0, 3, not 2"),
        ({"split": {11: "test"}}, "patient 'P11' is in its test split but belongs to no fold"),
        ({"split": {10: "test"}}, "patient 'P10' is in its test split but belongs to the external cohort"),
        ({"split": {2: "external"}}, "patient 'P2' is in its external split and is no external patient"),
        ({"patient_id": {1: "P0"}, "split": {1: "test"}}, "patient 'P0' is predicted twice in the test split"),
        ({"s:24.5": {0: float("nan")}}, "patient 'P0': predicted survival is no probability that falls with time"),
        ({"s:24.5": {0: 0.95}}, "patient 'P0': predicted survival is no probability that falls with time"),
        ({"s:6.0": {10: 1.1}}, "patient 'P10': predicted survival"),
    ],
)
def test_files_that_leak_or_cannot_be_scored_are_named(results, changes, message):
    write(results, 2, **changes)
    with pytest.raises(HistillError) as caught:
        read(results)
    assert message in caught.value.message
    assert "fold2-seed0" in caught.value.message
    assert caught.value.mend

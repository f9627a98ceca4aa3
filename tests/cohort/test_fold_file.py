from __future__ import annotations

import pytest

from histill.cohort import fold_file
from histill.cohort.sheets import Clinical, Sheets
from histill.cohort.tasks import Task

PATIENTS = [f"P{index}" for index in range(6)]


def written(tmp_path, folds) -> str:
    path = tmp_path / "folds.csv"
    path.write_text("patient_id,fold\n" + "".join(f"{p},{f}\n" for p, f in zip(PATIENTS, folds, strict=True)))
    return str(path)


@pytest.mark.parametrize("bad", ["²", "٠", "-1", "1.5", "a", "999999999", ""])
def test_fold_numbers_that_are_none(tmp_path, bad):
    problems: list[str] = []
    fold_file.read(written(tmp_path, [0, 1, bad, 1, 0, 1]), problems)
    assert problems == [f"{tmp_path}/folds.csv, line 4: fold '{bad}' of patient 'P2' is no whole number from 0"]


def test_patients_outside_the_cohort_need_no_fold(tmp_path):
    problems: list[str] = []
    path = written(tmp_path, [0, 1, "", 1, 0, 1])
    assert "P2" not in fold_file.read(path, problems, set(PATIENTS) - {"P2"})
    assert problems == []
    fold_file.read(path, problems, set(PATIENTS))
    assert len(problems) == 1


def test_whole_numbers_as_pandas_writes_them(tmp_path):
    problems: list[str] = []
    assert fold_file.read(written(tmp_path, ["0.0", "1.0", 0, 1, 0, 1]), problems)["P1"] == 1
    assert problems == []


@pytest.mark.parametrize(
    ("folds", "message"),
    [([0] * 6, "all patients are in fold 0"), ([1, 2] * 3, "are in [1, 2]"), ([0, 1, 0, 1, 0, 3], "are in [0, 1, 3]")],
)
def test_numbering(folds, message):
    (problem,) = fold_file.check("f.csv", dict(zip(PATIENTS, folds, strict=True)), PATIENTS, set(PATIENTS))
    assert message in problem


def holes(folds, outcomes, task):
    columns = task.columns
    rows = {p: dict(zip(columns, outcome, strict=True)) for p, outcome in zip(PATIENTS, outcomes, strict=True)}
    sheets = Sheets(clinical=Clinical("c.csv", list(columns), rows), tasks={task.name: task})
    return fold_file.holes(dict(zip(PATIENTS, folds, strict=True)), sheets)


def test_folds_that_cannot_teach_or_score_a_class():
    task = Task("dx", "classification", ("dx",))
    assert holes([0, 0, 1, 1, 2, 2], ["a", "b"] * 3, task) == ([], [])
    problems, _ = holes([0, 1, 0, 1, 0, 1], ["a", "b"] * 3, task)
    assert problems[0] == "task 'dx': outside fold 0 there is no patient of class 'a' to train on"
    problems, notes = holes([0, 1, 1, 1, 2, 2], ["a", "b"] * 3, task)
    assert (problems, notes) == ([], ["task 'dx': fold 0 has one class only, so its AUC cannot be computed"])


def test_folds_that_cannot_teach_or_score_survival():
    task = Task("os", "survival", ("t", "e"))
    outcomes = [("1", "1"), ("2", "0"), ("3", "1"), ("4", "0"), ("5", "0"), ("6", "0")]
    problems, notes = holes([0, 0, 1, 1, 2, 2], outcomes, task)
    assert (problems, notes) == ([], ["task 'os': fold 2 has no event, so its concordance cannot be computed"])
    problems, _ = holes([0, 1, 0, 1, 2, 2], outcomes, task)
    assert problems == ["task 'os': outside fold 0 there is no event to train on"]

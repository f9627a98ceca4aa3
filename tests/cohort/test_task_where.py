"""Tasks of some patients: several cohorts in one table, each with tasks of its own."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from histill.batches import write_batch
from histill.cohort import sheets, stage
from histill.cohort.tasks import Task
from histill.config import complete
from histill.errors import ConfigError
from histill.features.imports import import_table
from histill.provenance import read_json

# Each project writes survival its own way: KIRC has codes that the task of LUNG would refuse.
ROWS = [
    *(("LUAD", "adenocarcinoma", f"{10 + number}", f"{number % 2}") for number in range(4)),
    *(("lusc", "squamous", f"{20 + number}", f"{number % 2}") for number in range(4)),
    *(("KIRC", grade, "-9", "dead") for grade in ("G1", "G3", "G3", "")),
    ("", "adenocarcinoma", "5", "1"),
]
PATIENTS = [f"P{number:02d}" for number in range(len(ROWS))]
LUNG = {"project": ["LUAD", "LUSC"]}


def load(folder, tasks):
    lines = [",".join([patient, *cells]) for patient, cells in zip(PATIENTS, ROWS, strict=True)]
    (folder / "clinical.csv").write_text("\n".join(["patient_id,project,class,days,dead", *lines]) + "\n")
    vectors = [f"s{number},{patient},{number}" for number, patient in enumerate(PATIENTS)]
    (folder / "vectors.csv").write_text("\n".join(["slide_id,patient_id,a", *vectors]) + "\n")
    config = complete(
        {
            "results": str(folder / "results"),
            "cohort": {"clinical": str(folder / "clinical.csv")},
            "features": {"source": "table", "table": str(folder / "vectors.csv"), "encoder": "vectors"},
            "tasks": tasks,
            "folds": {"n": 2},
        }
    )
    return sheets.load(config), config


def problems(folder, task) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, {"x": task})
    return caught.value.problems


TASKS = {
    "lung": {"type": "classification", "label": "class", "where": LUNG},
    "os": {"type": "survival", "time": "days", "event": "dead", "where": LUNG},
    "grade": {"type": "classification", "label": "class", "missing_codes": ["G1"], "where": {"project": "KIRC"}},
}


def test_labels_are_of_the_patients_that_a_task_is_of(tmp_path):
    tasks = {name: TASKS[name] for name in ("lung", "os")}
    found, config = load(tmp_path, tasks)
    receipts = import_table(tmp_path / "vectors.csv", name="vectors", results=tmp_path / "results", recipe="r")
    write_batch(tmp_path / "results" / "receipts" / "features.json", "features", receipts)
    receipt = stage.run(sheets=found, config=config, results=tmp_path / "results")

    table = pq.read_table(tmp_path / "results" / "cohort" / "patients.parquet").to_pydict()
    assert table["label:lung"] == ["adenocarcinoma"] * 4 + ["squamous"] * 4 + [None] * 5
    assert table["time:os"] == [10, 11, 12, 13, 20, 21, 22, 23] + [None] * 5
    folds = read_json(tmp_path / "results" / "cohort" / "folds.json")
    assert folds["classes"]["lung"] == ["adenocarcinoma", "squamous"]
    assert set(table["fold"]) == {0, 1}  # all are in a fold: those without a label too
    drawn = {patient for own in folds["validation"]["lung"].values() for patient in own}
    assert drawn <= set(PATIENTS[:8])
    assert receipt["counts"]["without_outcome:lung"] == 0
    assert receipt["warnings"] == [
        "task 'lung' is of 8 of 13 patients: project is LUAD or LUSC",
        "task 'os' is of 8 of 13 patients: project is LUAD or LUSC",
    ]


def test_only_their_rows_are_checked_and_counted(tmp_path):
    """KIRC's survival would be refused, were the task of all."""
    found, _ = load(tmp_path, {"os": TASKS["os"]})
    assert found.tasks["os"].label(found.clinical.rows["P08"]) is None
    everyone = {key: value for key, value in TASKS["os"].items() if key != "where"}
    assert any("'dead' is 'dead'" in line or "'days' is -9" in line for line in problems(tmp_path, everyone))
    # Of KIRC's four, one has no grade and that of another is a code; the lung cancers' classes do not count.
    (problem,) = problems(tmp_path, TASKS["grade"])
    assert "holds one class only ('G3')" in problem


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"project": "kirc"}, PATIENTS[8:12]),
        ({"project": ["KIRC", "LUAD"], "days": 11}, ["P01"]),
        ({"days": [11.0, 20]}, ["P01", "P04"]),
        ({"dead": "dead"}, PATIENTS[8:12]),
        ({}, PATIENTS),
    ],
)
def test_values_of_cells(tmp_path, where, expected):
    found, _ = load(tmp_path, {})
    task = Task.from_config("x", {"type": "classification", "label": "class", "where": where})
    assert [patient for patient, row in found.clinical.rows.items() if task.covers(row)] == expected


def test_columns_and_values_that_are_not_there(tmp_path):
    where = "task 'x' is of patients by column"
    (problem,) = problems(tmp_path, {**TASKS["lung"], "where": {"cohort": "LUAD"}})
    assert problem.endswith(
        f"{where} 'cohort' (where), which does not exist; the columns are patient_id, project, class, days, dead"
    )
    (problem,) = problems(tmp_path, {**TASKS["lung"], "where": {"project": ["LUAD", "BRCA"]}})
    assert problem.startswith(f"{tmp_path}/clinical.csv: {where} 'project' (where), and no patient has 'BRCA' there; ")
    assert problem.endswith("it holds KIRC, LUAD, lusc")
    (problem,) = problems(tmp_path, {**TASKS["lung"], "where": {"class": "G1"}})
    assert "holds one class only ('G1')" in problem


def test_reports_say_which_patients_a_task_is_of():
    task = Task.from_config("x", {"type": "classification", "label": "class", "where": {**LUNG, "stage": 1}})
    assert task.sources() == {"label": "class", "where": "where project is LUAD or LUSC and stage is 1"}
    rule = Task.from_config("x", {"type": "classification", "rule": "glioma-grade", "where": {"project": "LGG"}})
    assert rule.sources()["where"] == "where project is LGG"
    assert rule.label({"project": "GBM", "Grade": "G4", "Histology": "GBM"}) is None


@pytest.mark.parametrize("where", [{}, {"project": []}, {"project": ""}, {"project": None}, {"project": True}, "LUAD"])
def test_conditions_that_are_none(where):
    with pytest.raises(ConfigError, match="where"):
        complete({"results": "r", "cohort": {}, "tasks": {"x": {**TASKS["lung"], "where": where}}})

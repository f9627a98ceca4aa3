"""Tasks whose classes come from a rule, and codes for "not known": sheets in, labels and notes out."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from histill.batches import write_batch
from histill.cohort import sheets, stage
from histill.cohort.tasks import Task
from histill.config import complete
from histill.data.fold import Labels
from histill.errors import ConfigError
from histill.features.imports import import_table
from histill.provenance import read_json
from histill.report.cohort import cohort_facts

HEADER = "patient_id,IDH status,1p/19q codeletion,CDKN2A,Grade,TERT promoter status"
ROWS = [
    ("WT,non-codel,-2,G4,", "GBM IDH-wildtype"),
    ("WT,,NAN,G2,Mutant", "GBM IDH-wildtype"),
    ("WT,,,G2,WT", None),
    ("WT,codel,0,G4,", None),
    ("Mutant,non-codel,-2.0,II,", "astrocytoma G4"),
    ("Mutant,non-codel,0,G4,", "astrocytoma G4"),
    ("Mutant,non-codel,-1,3,", "astrocytoma G2-3"),
    ("Mutant,non-codel,0,grade 2,", "astrocytoma G2-3"),
    ("Mutant,non-codel,-9,G3,", None),
    ("Mutant,codel,,G2,", "oligodendroglioma G2-3"),
    ("Mutant,codel,-2,G4,", "oligodendroglioma G2-3"),
    ("nan,,,,", None),
]
PATIENTS = [f"P{number:02d}" for number in range(len(ROWS))]
RULE = {
    "type": "classification",
    "rule": "who2021-glioma",
    "columns": {"histology": None, "tert": "TERT promoter status"},
}


def load(folder, task, *, header=HEADER, rows=None):
    """(sheets, config) of a cohort with one slide vector a patient."""
    rows = [cells for cells, _ in ROWS] if rows is None else rows
    lines = [f"{patient},{cells}" for patient, cells in zip(PATIENTS, rows, strict=False)]
    (folder / "clinical.csv").write_text("\n".join([header, *lines]) + "\n")
    vectors = [f"s{number},{patient},{number}" for number, patient in enumerate(PATIENTS)]
    (folder / "vectors.csv").write_text("\n".join(["slide_id,patient_id,a", *vectors]) + "\n")
    config = complete(
        {
            "results": str(folder / "results"),
            "cohort": {"clinical": str(folder / "clinical.csv")},
            "features": {"source": "table", "table": str(folder / "vectors.csv"), "encoder": "vectors"},
            "tasks": {"x": task},
            "folds": {"n": 2},
        }
    )
    return sheets.load(config), config


def problems(folder, task, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, task, **options)
    return caught.value.problems


def test_the_cohort_stage_with_a_rule(tmp_path):
    found, config = load(tmp_path, RULE)
    results = tmp_path / "results"
    receipts = import_table(tmp_path / "vectors.csv", name="vectors", results=results, recipe="r")
    write_batch(results / "receipts" / "features.json", "features", receipts)
    receipt = stage.run(sheets=found, config=config, results=results)

    table = pq.read_table(results / "cohort" / "patients.parquet").to_pydict()
    assert dict(zip(table["patient_id"], table["label:x"], strict=True)) == dict(
        zip(PATIENTS, (label for _, label in ROWS), strict=True)
    )
    folds = read_json(results / "cohort" / "folds.json")
    assert folds["classes"]["x"] == sorted({label for _, label in ROWS if label})
    assert receipt["counts"]["without_outcome:x"] == 4
    (outcome,) = cohort_facts(results, config["tasks"])["outcomes"]
    assert outcome["columns"][:2] == ["rule who2021-glioma (clinical)", "IDH status"]
    assert outcome["classes"][0] == ("GBM IDH-wildtype", 2)
    who, sheet = "without a class by rule 'who2021-glioma'", tmp_path / "clinical.csv"
    assert receipt["warnings"] == [
        "task 'x': 4 patients without an outcome; kept for prediction",
        "task 'x': 1 patient of class 'oligodendroglioma G2-3' by rule 'who2021-glioma' with a reservation: grade 4 in "
        f"the sheet, while WHO 2021 grades oligodendrogliomas 2 or 3 ({sheet}, line 12)",
        f"task 'x': 1 patient {who}: IDH-mutant astrocytoma of grade 2 or 3 whose CDKN2A/B is not known ({sheet}, "
        "line 10)",
        f"task 'x': 1 patient {who}: IDH-wildtype and 1p/19q codeleted contradict each other ({sheet}, line 5)",
        f"task 'x': 1 patient {who}: IDH-wildtype of grade 2 or 3; TERT promoter, EGFR and +7/-10 are not all known "
        f"({sheet}, line 4)",
        f"task 'x': 1 patient {who}: no marker is known ({sheet}, line 13)",
    ]


def test_every_patient_without_a_class_is_in_one_note(tmp_path):
    found, _ = load(tmp_path, {**RULE, "preset": "published", "columns": {}})
    labels = [found.tasks["x"].label(found.clinical.rows[patient]) for patient in PATIENTS]
    assert labels.count(None) == 1
    assert sum(": 1 patient without a class" in note for note in found.notes) == 1
    granted = [note for note in found.notes if "with a reservation" in note]
    assert len(granted) == 1
    assert "not known: CDKN2A taken for not deleted" in granted[0]


def test_spellings_that_nobody_knows(tmp_path):
    rows = [cells for cells, _ in ROWS]
    rows[2], rows[5] = "WT,maybe,,G2,WT", "Mutant,non-codel,deleted,G4,"
    first, second = problems(tmp_path, RULE, rows=rows)
    assert first.startswith(
        f"{tmp_path}/clinical.csv, line 4: patient 'P02': '1p/19q codeletion' is 'maybe', no known spelling of "
        "codeletion; write one of these, or empty the cell: codeleted: codel,"
    )
    assert "line 7: patient 'P05': 'CDKN2A' is 'deleted', no known spelling of cdkn2a" in second
    assert "homozygous: -2, homdel" in second
    many = problems(tmp_path, RULE, rows=["?x,,,," for _ in ROWS])
    assert len(many) == 11
    assert many[-1].endswith("and 2 more such rows of task 'x'")


def test_a_column_of_0_and_1_is_no_copy_number_for_sure(tmp_path):
    rows = [f"Mutant,non-codel,{number % 2},G{2 + number % 3}," for number in range(len(PATIENTS))]
    (found,) = problems(tmp_path, RULE, rows=rows)
    assert "column 'CDKN2A' of task 'x' holds 0 and 1 only" in found


def test_columns_that_are_not_there(tmp_path):
    (found,) = problems(tmp_path, {**RULE, "columns": {"tert": "TERT promoter status"}})
    assert "needs column 'Histology', which does not exist; name yours in the task's columns.histology, or" in found
    assert "set columns.histology: null to do without" in found
    (found,) = problems(tmp_path, {**RULE, "columns": {**RULE["columns"], "idh": "IDH"}})
    assert found.endswith("name yours in the task's columns.idh")
    (found,) = problems(tmp_path, {**RULE, "rule": "glioma-subtype"})
    assert (
        found == "config: task 'x': rule 'glioma-subtype', preset 'clinical', does not read 'tert'; remove columns.tert"
    )


def test_classes_that_a_rule_leaves_too_small(tmp_path):
    rows = ["WT,,,G4,"] * 11 + ["Mutant,codel,,G2,"]
    (found,) = problems(tmp_path, RULE, rows=rows)
    assert "rule 'who2021-glioma' of task 'x': class 'oligodendroglioma G2-3' has 1 patients" in found
    (found,) = problems(tmp_path, RULE, rows=["WT,,,G4,"] * 12)
    assert "gives one class only ('GBM IDH-wildtype')" in found


@pytest.mark.parametrize(
    ("task", "sources"),
    [
        ({"type": "classification", "label": "dx"}, {"label": "dx"}),
        ({"type": "survival", "time": "t", "event": "e", "bins": 4}, {"time": "t", "event": "e"}),
        (
            {"type": "classification", "rule": "glioma-grade"},
            {"rule": "rule glioma-grade (clinical)", "grade": "Grade", "histology": "Histology"},
        ),
    ],
)
def test_sources_for_reports(task, sources):
    built = Task.from_config("x", task)
    assert built.sources() == sources
    assert built.columns == tuple(column for key, column in sources.items() if key != "rule")


@pytest.mark.parametrize(
    "task",
    [
        {"type": "classification"},
        {"type": "classification", "label": "dx", "rule": "glioma-grade"},
        {"type": "classification", "label": "dx", "columns": {"idh": "IDH"}},
        {"type": "classification", "label": "dx", "preset": "published"},
        {"type": "classification", "rule": "glioma-grade", "event": "dead"},
        {"type": "survival", "time": "days", "event": "dead", "rule": "glioma-grade"},
        {"type": "survival", "time": "days", "event": "dead", "missing_cdkn2a": "intact"},
    ],
)
def test_a_task_has_a_label_a_rule_or_a_time(task):
    with pytest.raises(ConfigError, match="a classification task needs either 'label' or 'rule'"):
        complete({"results": "r", "cohort": {}, "tasks": {"x": task}})


def test_a_checkpoint_says_which_rule_gave_its_classes():
    task = Task.from_config("x", RULE)
    meta = json.loads(json.dumps(Labels(task, ["A", "B"]).meta()))
    assert meta["rule"]["name"] == "who2021-glioma"
    assert Labels.from_meta(meta).task == task
    assert Labels.from_meta(Labels(Task("dx", "classification", ("dx",))).meta()).task.rule is None


SURVIVAL = {"type": "survival", "time": "days", "event": "dead"}


def survival_rows(**changed):
    return [changed.get(patient, f"{10 + number},{number % 2}") for number, patient in enumerate(PATIENTS)]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("-9,1", "'days' is -9, which reads like a code for 'not known'; empty the cell"),
        ("-9.0,", "'days' is -9.0, which reads like a code for 'not known'; empty the cell"),
        ("12,-9", "'dead' is -9, which reads like a code for 'not known'; empty the cell"),
        ("-3,1", "'days' is -3, and a time cannot be negative"),
        (",1", "'dead' is given and 'days' is empty; fill both or empty both"),
    ],
)
def test_survival_that_is_half_known_or_coded(tmp_path, cells, message):
    (found,) = problems(tmp_path, SURVIVAL, header="patient_id,days,dead", rows=survival_rows(P03=cells))
    assert f"{tmp_path}/clinical.csv, line 5: patient 'P03': {message}" in found


def test_codes_that_the_task_names_are_not_known(tmp_path):
    rows = survival_rows(P03="-9,1", P04="-9.0,-9", P05="14,unknown", P06="0,1")
    task = {**SURVIVAL, "missing_codes": [-9, "Unknown"]}
    found, _ = load(tmp_path, task, header="patient_id,days,dead", rows=rows)
    labels = [found.tasks["x"].label(found.clinical.rows[patient]) for patient in PATIENTS]
    assert labels[3:7] == [None, None, None, (0.0, 1)]
    sheet = tmp_path / "clinical.csv"
    assert found.notes == [
        "task 'x': 3 patients without an outcome; kept for prediction",
        f"task 'x': 1 patient whose 'days' is -9, read as not known ({sheet}, line 5)",
        f"task 'x': 1 patient whose 'days' is -9.0, read as not known ({sheet}, line 6)",
        f"task 'x': 1 patient whose 'days' is 0; kept ({sheet}, line 8)",
        f"task 'x': 1 patient whose 'dead' is -9, read as not known ({sheet}, line 6)",
        f"task 'x': 1 patient whose 'dead' is unknown, read as not known ({sheet}, line 7)",
    ]


def test_codes_in_classes(tmp_path):
    rows = ["a", "b", "-9"] * 4
    task = {"type": "classification", "label": "dx"}
    (found,) = problems(tmp_path, task, header="patient_id,dx", rows=rows)
    assert "class '-9' reads like a code for 'not known'" in found
    loaded, _ = load(tmp_path, {**task, "missing_codes": [-9]}, header="patient_id,dx", rows=rows)
    assert loaded.tasks["x"].label(loaded.clinical.rows["P02"]) is None
    assert any("4 patients whose 'dx' is -9, read as not known" in note for note in loaded.notes)


def test_codes_in_a_rule_s_columns(tmp_path):
    rows = [cells for cells, _ in ROWS]
    rows[0] = "WT,not done,-2,G4,"
    assert "'not done', no known spelling" in problems(tmp_path, RULE, rows=rows)[0]
    loaded, _ = load(tmp_path, {**RULE, "missing_codes": ["not done"]}, rows=rows)
    assert loaded.tasks["x"].label(loaded.clinical.rows["P00"]) == "GBM IDH-wildtype"


@pytest.mark.shared_data
def test_tcga_gliomas(tmp_path, shared_data):
    """569 patients with IDH1, CDKN2A, EGFR and a histological type, and no 1p/19q: what that can and cannot decide."""
    import pandas as pd

    source = shared_data / "rna" / "porpoise_tcga_gbmlgg.csv.zip"
    wanted = ["case_id", "oncotree_code", "IDH1_mut", "CDKN2A_cnv", "EGFR_cnv"]
    table = pd.read_csv(source, usecols=wanted).drop_duplicates("case_id").rename(columns={"case_id": "patient_id"})
    table.assign(codeletion=None, grade=None).to_csv(tmp_path / "c.csv", index=False)
    columns = {"idh": "IDH1_mut", "codeletion": "codeletion", "cdkn2a": "CDKN2A_cnv", "grade": "grade"}
    seen = {"histology": "oncotree_code", "egfr": "EGFR_cnv"}

    def labels(**task) -> pd.Series:
        config = complete(
            {"results": "r", "cohort": {}, "tasks": {"x": {"type": "classification", "rule": "who2021-glioma", **task}}}
        )
        read = sheets._read_clinical(str(tmp_path / "c.csv"), [])
        built = Task.from_config("x", config["tasks"]["x"])
        assert built._check_spellings(read) == []
        noted = [note for note in built.notes(read) if "without a class" in note]
        found = pd.Series({patient: built.label(row) for patient, row in read.rows.items()}, dtype=object)
        assert sum(int(note.split(": ")[1].split()[0]) for note in noted) == found.isna().sum()
        return found.reindex(table["patient_id"])

    wildtype, gbm = table["IDH1_mut"] == 0, table["oncotree_code"] == "GBM"
    clinical = labels(columns={**columns, **seen})
    assert (len(table), wildtype.sum()) == (569, 193)
    # Mutants need 1p/19q; lower grades need a molecular sign, of which EGFR alone is known here.
    expected = wildtype & (gbm | (table["EGFR_cnv"] == 2))
    assert ((clinical == "GBM IDH-wildtype").to_numpy() == expected.to_numpy()).all()
    assert clinical.isna().sum() == len(table) - expected.sum()
    published = labels(columns=columns, preset="published").value_counts()
    lost = ~wildtype & table["CDKN2A_cnv"].isin([-1, -2])
    assert published.to_dict() == {
        "GBM IDH-wildtype": 193,
        "astrocytoma G4": lost.sum(),
        "astrocytoma G2-3": (~wildtype & ~lost).sum(),
    }

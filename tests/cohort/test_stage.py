"""The cohort stage: who has what, and what is said where sources do not fit together."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from histill.batches import write_batch
from histill.cohort import stage
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.cohort.tasks import Task
from histill.config import complete
from histill.errors import HistillError
from histill.features.imports import import_table
from histill.provenance import Receipt, read_json

PATIENTS = [f"P{number:02d}" for number in range(12)]
TASK = Task("dx", "classification", ("diagnosis",))


@pytest.fixture
def config():
    return complete({"results": "results", "cohort": {}, "folds": {"n": 3}})


def sheets(*, slides=True, expression=None, patients=PATIENTS) -> Sheets:
    found = Sheets(clinical=Clinical(columns=["patient_id", "diagnosis"]), expression=expression, tasks={"dx": TASK})
    for number, patient in enumerate(patients):
        found.clinical.rows[patient] = {"diagnosis": "AB"[number % 2], "site": "north"}
    if slides:
        found.slides = {f"{p}-1": Slide(f"{p}-1", p, f"{p}.svs", site="south") for p in PATIENTS}
    return found


def write_features(results, states=None):
    states = states or {}
    receipts = [Receipt(f"{p}-1", "features", states.get(p, "ok"), "r", outputs={p: "d"}) for p in PATIENTS]
    write_batch(results / "receipts" / "features.json", "features", receipts)


def write_expression(results, patients):
    from histill.transcriptome.stage import write

    samples = [f"{patient}-{number}" for number, patient in enumerate(patients)]
    (results / "transcriptome").mkdir()
    write(results / "transcriptome" / "expression.h5ad", np.zeros((len(samples), 1)), samples, patients, ["TP53"], {})


def table(results):
    return {row["patient_id"]: row for row in pq.read_table(results / "cohort" / "patients.parquet").to_pylist()}


def test_modalities_labels_and_sites_are_joined_by_patient(config, tmp_path):
    write_features(tmp_path, {"P01": "quarantined", "P02": "empty"})
    write_expression(tmp_path, ["P03", "P01", "P03", "new"])
    receipt = stage.run(sheets=sheets(expression="x.tsv"), config=config, results=tmp_path)
    rows = table(tmp_path)
    assert sorted(rows) == [*PATIENTS, "new"]
    assert [p for p, row in rows.items() if not row["has_slide"]] == ["P01", "P02", "new"]
    assert [p for p, row in rows.items() if row["has_rna"]] == ["P01", "P03", "new"]
    assert rows["P05"]["slides"] == ["P05-1"]
    assert rows["P01"]["slides"] == []
    assert {p: row["label:dx"] for p, row in rows.items()} == {p: "AB"[int(p[1:]) % 2] for p in PATIENTS} | {
        "new": None
    }
    assert rows["P05"]["site"] == "north"  # of the clinical sheet, not of the slide
    assert receipt["counts"]["with_both"] == 1
    assert any(text.startswith("1 of 3 patients of the expression table") for text in receipt["warnings"])
    folds = read_json(tmp_path / "cohort" / "folds.json")
    assert folds["assignment"] == {p: [row["fold"]] for p, row in rows.items()}
    assert (folds["n"], folds["repeats"], folds["sites"]) == (3, 1, None)
    for fold, held in folds["validation"]["dx"].items():
        assert held
        assert not {rows[p]["fold"] for p in held} & {int(fold)}
        assert all(rows[p]["has_slide"] for p in held)


def test_an_expression_table_of_other_patients_is_refused(config, tmp_path):
    """Such as samples that were not cut to patients: nobody would have both, and no later stage could say why."""
    write_features(tmp_path)
    write_expression(tmp_path, [f"{patient}-01A" for patient in PATIENTS])
    with pytest.raises(HistillError, match="none of the 12 patients of the expression table") as caught:
        stage.run(sheets=sheets(expression="x.tsv"), config=config, results=tmp_path)
    assert "transcriptome.matrix.patient" in caught.value.mend


def write_vectors(results, patients):
    path = results / "vectors.csv"
    rows = [f"s{number},{patient},{'' if number == 0 else number}" for number, patient in enumerate(patients)]
    path.write_text("\n".join(["slide_id,patient_id,a", *rows]) + "\n")
    receipts = import_table(path, name="vectors", results=results, recipe="r")
    write_batch(results / "receipts" / "features.json", "features", receipts)


def test_a_slide_vector_without_values_stays_with_its_patient(config, tmp_path):
    write_vectors(tmp_path, [*PATIENTS, "other"])
    stage.run(sheets=sheets(slides=False), config=config, results=tmp_path)
    rows = table(tmp_path)
    assert (rows["P00"]["n_slides"], rows["P00"]["has_slide"]) == (0, False)
    assert rows["P01"]["slides"] == ["s1"]


def test_a_table_of_features_of_other_patients_is_refused(config, tmp_path):
    write_vectors(tmp_path, [patient.lower() for patient in PATIENTS])
    with pytest.raises(HistillError, match="none of the 12 patients"):
        stage.run(sheets=sheets(slides=False), config=config, results=tmp_path)


def test_a_class_without_a_usable_slide_is_told(config, tmp_path):
    write_features(tmp_path, dict.fromkeys(PATIENTS[1::2], "quarantined"))
    receipt = stage.run(sheets=sheets(), config=config, results=tmp_path)
    assert receipt["warnings"] == ["task 'dx': no patient of class 'B' among the patients with a usable slide"]

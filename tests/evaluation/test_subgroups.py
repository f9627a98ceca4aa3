"""Subgroups and external cohorts of a results folder."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.evaluation.stage import evaluate, run
from histill.provenance import write_json
from tests.evaluation.fake import write_cohort

METHODS = {"methods": {"run": ["abmil", "linear-slide", "linear-rna"]}}


def _write_sheet(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


@pytest.fixture
def cohort(tmp_path):
    """Sites in patients.parquet, sex and stage in the clinical sheet, vendors in slide.json."""
    results = tmp_path / "results"
    results.mkdir()
    config = write_cohort(results, patients=90, **METHODS)
    config["cohort"]["clinical"] = str(tmp_path / "clinical.csv")
    path = results / "cohort" / "patients.parquet"
    table = pq.read_table(path).to_pydict()
    table["site"] = [("north", "south", "east")[i % 3] if i < 80 else None for i in range(90)]
    table["slides"] = [[f"S{i}"] if i % 9 else [f"S{i}", f"S{i}b"] for i in range(90)]
    pq.write_table(pa.table(table), path)
    rows = [("patient_id", "Sex", "stage", "cohort")]
    for i, patient in enumerate(table["patient_id"]):
        rows.append((patient, "female" if i % 2 else "male", "" if i < 5 else "IV" if i < 14 else "I-III", "A"))
        for number, slide in enumerate(table["slides"][i]):
            write_json(results / "slides" / slide / "slide.json", {"vendor": ("aperio", "hamamatsu")[number]})
    _write_sheet(tmp_path / "clinical.csv", rows)
    return results, config, rows


def _found(report):
    return {entry["column"]: entry for entry in report["subgroups"]["columns"]}


def test_the_usual_columns_are_found_whatever_their_case_and_levels_scored(cohort):
    results, config, _ = cohort
    report = evaluate(task="survival", config=config, results=results)
    columns = _found(report)
    assert list(columns) == ["site", "sex", "stage", "scanner"]
    n = report["paired"]["n"]
    for entry in columns.values():
        assert sum(level["n"] for level in entry["levels"]) + entry["missing"] == n
    female = next(level for level in columns["sex"]["levels"] if level["level"] == "female")
    assert not female["small"]
    assert set(female["models"]["abmil"]) == {"c_index", "td_auc"}
    value = female["models"]["abmil"]["c_index"]
    assert value["low"] < value["value"] < value["high"]
    assert value["value"] != report["paired"]["models"]["abmil"]["c_index"]["value"]
    stage = {level["level"]: level for level in columns["stage"]["levels"]}
    assert stage["IV"]["n"] < 10
    assert (stage["IV"]["small"], stage["IV"]["models"]) == (True, {})
    assert {level["level"] for level in columns["scanner"]["levels"]} == {"aperio", "several"}


def test_classes_and_columns_asked_for(cohort):
    results, config, _ = cohort
    config["evaluation"]["subgroups"] = ["stage"]
    report = evaluate(task="subtype", config=config, results=results)
    (column,) = report["subgroups"]["columns"]
    level = next(level for level in column["levels"] if level["level"] == "I-III")
    assert sum(level["classes"].values()) == level["n"]
    assert set(level["models"]["linear-rna"]) == {"auc", "balanced_accuracy"}
    config["evaluation"]["subgroups"] = []
    assert evaluate(task="subtype", config=config, results=results)["subgroups"]["columns"] == []


def test_a_column_that_is_not_there_or_is_no_grouping_is_an_error_that_names_it(cohort):
    results, config, rows = cohort
    config["evaluation"]["subgroups"] = ["grade"]
    with pytest.raises(HistillError, match=r"no column 'grade'") as error:
        evaluate(task="survival", config=config, results=results)
    assert "stage" in error.value.mend
    _write_sheet(config["cohort"]["clinical"], [(*rows[0], "code"), *((*row, row[0]) for row in rows[1:])])
    config["evaluation"]["subgroups"] = ["code"]
    with pytest.raises(HistillError, match=r"'code' has \d+ values among"):
        evaluate(task="survival", config=config, results=results)


def test_without_a_clinical_sheet_there_are_the_columns_of_the_slides(cohort):
    results, config, _ = cohort
    config["cohort"]["clinical"] = str(results / "absent.csv")
    assert list(_found(evaluate(task="survival", config=config, results=results))) == ["site", "scanner"]


def test_external_cohorts_are_scored_apart_and_models_without_their_modality_left_out(cohort):
    results, config, rows = cohort
    outside = {row[0]: "CPTAC" if i % 2 else "GTEX" for i, row in enumerate(rows[1:]) if i % 3 == 0}
    sheet = [rows[0], *((*row[:3], outside.get(row[0], "A")) for row in rows[1:])]
    _write_sheet(config["cohort"]["clinical"], sheet)
    config["folds"]["external"] = {"column": "cohort", "values": ["CPTAC", "GTEX"]}
    folds = json.loads((results / "cohort" / "folds.json").read_text())
    folds["assignment"] = {p: [-2] if p in outside else own for p, own in folds["assignment"].items()}
    folds["assignment"] |= {p: [1 + int(p[1:]) % 2] for p, own in folds["assignment"].items() if own != [-2]}
    write_json(results / "cohort" / "folds.json", folds)
    for path in results.glob("models/survival/**/predictions.parquet"):
        fold = int(path.parent.parent.name[4])
        table = pq.read_table(path).to_pydict()
        table["split"] = [
            "external" if p in outside else "test" if folds["assignment"][p] == [fold] else "train"
            for p in table["patient_id"]
        ]
        keep = [not (p in outside and "linear-rna" in str(path)) for p in table["patient_id"]]
        pq.write_table(pa.table(table).filter(pa.array(keep)), path)
    edit = pq.read_table(results / "cohort" / "patients.parquet").to_pydict()
    assert set(outside) <= set(edit["patient_id"])
    report = run(task="survival", config=config, results=results)
    assert report["folds"] == [1, 2]
    assert report["paired"]["n"] < 60
    cohorts = {entry["name"]: entry for entry in report["external"]["cohorts"]}
    assert sorted(cohorts) == ["CPTAC", "GTEX"]
    own = cohorts["CPTAC"]
    assert own["n"] == 15
    assert (set(own["models"]), own["left_out"]) == ({"abmil", "linear-slide"}, ["linear-rna"])
    assert [fold["n"] for fold in own["folds"]] == [15, 15]
    assert own["models"]["abmil"]["c_index"]["low"] < own["models"]["abmil"]["c_index"]["high"]
    with open(results / "evaluation" / "survival.tsv", newline="") as handle:
        sets = {row["set"] for row in csv.DictReader(handle, delimiter="\t")}
    assert {"paired", "own", "external: CPTAC", "external: GTEX"} <= sets


def test_without_external_patients_there_is_no_such_part(cohort):
    results, config, _ = cohort
    assert evaluate(task="survival", config=config, results=results)["external"] is None

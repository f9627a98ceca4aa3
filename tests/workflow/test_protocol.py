"""Repeats, preserved sites and an external cohort together, from the sheets to the report."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest
import yaml

from tests.workflow.conftest import Project

pytestmark = pytest.mark.workflow

FOLDS = {"n": 2, "repeats": 2, "sites": "preserve", "external": {"column": "cohort", "values": ["elsewhere"]}}


@pytest.fixture(scope="module")
def project(tmp_path_factory, root):
    """A finished run of 60 planted patients of ten sites, two of which are the external cohort."""
    from histill.demo.planted import make
    from histill.features.store import write_store

    work = tmp_path_factory.mktemp("protocol")
    make(work / "cohort", write_store, patients=60, tiles=16, dim=16)
    sheet = work / "cohort" / "clinical.csv"
    rows = list(csv.DictReader(sheet.open()))
    for index, row in enumerate(rows):
        row |= {"site": f"site {index % 10}", "cohort": "elsewhere" if index % 10 > 7 else "here"}
    with sheet.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    config = yaml.safe_load((work / "cohort" / "config.yaml").read_text())
    config |= {
        "tasks": {"survival": {"type": "survival", "time": "os_months", "event": "os_event"}},
        "folds": FOLDS,
        "methods": {"run": ["linear-slide", "linear-both"]},
        "evaluation": {"bootstrap": 100},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    project = Project(root, work)
    project.snakemake()
    return project


def test_folds_preserve_sites_in_every_repeat_and_leave_the_external_cohort_out(project):
    results = project.work / "cohort" / "results"
    folds = json.loads((results / "cohort" / "folds.json").read_text())
    assert (folds["n"], folds["repeats"], len(folds["sites"])) == (4, 2, 2)
    table = pq.read_table(results / "cohort" / "patients.parquet").to_pylist()
    tested: dict[str, set] = {}
    for row in table:
        tested.setdefault(row["site"], set()).add(tuple(folds["assignment"][row["patient_id"]]))
    assert all(len(numbers) == 1 for numbers in tested.values())
    assert {site for site, numbers in tested.items() if numbers == {(-2, -2)}} == {"site 8", "site 9"}


def test_every_repeat_and_the_external_cohort_are_scored(project):
    results = project.work / "cohort" / "results"
    report = json.loads((results / "evaluation" / "survival.json").read_text())
    metric = report["paired"]["models"]["linear-both"]["c_index"]
    assert [fold["fold"] for fold in metric["folds"]] == [0, 1, 2, 3]
    assert report["paired"]["n"] == 48
    (cohort,) = report["external"]["cohorts"]
    assert (cohort["name"], cohort["n"]) == ("elsewhere", 12)
    assert 0 < cohort["models"]["linear-both"]["c_index"]["value"] <= 1
    assert json.loads((results / "cohort" / "audit.json").read_text())["state"] == "ok"
    assert (results / "report.html").exists()


def test_a_second_run_plans_nothing(project):
    assert not project.planned()

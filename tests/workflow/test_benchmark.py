"""The rules of the benchmark, on a small cohort of features: what is planned, and that a second run plans nothing."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest

from tests.workflow.conftest import Planted

pytestmark = pytest.mark.workflow

METHODS = ["disentangled", "wsi-only", "meanpool", "transmil", "snn", "mcat"]
SMALL = {
    "tasks": {"survival": {"type": "survival", "time": "os_months", "event": "os_event", "bins": 4}},
    "folds": {"n": 2},
    "training": {"device": "cpu", "logs": [], "model": {"epochs": 1}},
    "methods": {
        "run": ["linear-slide"],
        "disentangled": {"model": {"dim": 16}},
        "meanpool": {"hidden": 16},
        "transmil": {"dim": 16, "landmarks": 4},
        "snn": {"dim": 16},
        "mcat": {"dim": 16},
    },
    "benchmark": {"methods": METHODS},
    "evaluation": {"bootstrap": 100},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, root):
    return Planted.make(root, tmp_path_factory.mktemp("benchmark"), SMALL)


def test_all_methods_are_planned_with_what_they_stand_on_and_the_run_stays_as_it_is(cohort):
    cohort.configure(benchmark={"methods": None})
    planned = cohort.planned("benchmark")
    # disentangled 2, mirror 5, msrl 5, and one of the ten others each.
    assert planned["train_runs"] == 2 + 5 + 5 + 10
    assert (planned["predict"], planned["predict_benchmark"], planned["benchmark_table"]) == (1, 1, 1)
    assert not {name for name in cohort.planned() if "benchmark" in name}
    assert cohort.planned()["train_runs"] == 1


def test_what_the_run_alone_asks_for_is_not_trained_for_the_benchmark(cohort):
    cohort.configure()
    planned = cohort.planned("benchmark")
    assert planned["train_runs"] == len(METHODS) + 1  # the teacher's student
    assert "predict" not in planned


def test_without_transcriptomes_what_needs_them_is_left_out_or_refused(cohort):
    bare = {"clinical": "cohort/clinical.csv", "slides": "cohort/slides.csv", "expression": None}
    cohort.configure(cohort=bare, benchmark={"methods": None})
    assert cohort.planned("benchmark")["train_runs"] == 5
    cohort.configure(cohort=bare)
    done = cohort.snakemake("-n", "benchmark", check=False)
    assert done.returncode != 0
    assert "'mcat' needs transcriptomes" in done.stdout + done.stderr
    assert cohort.planned()["report"] == 1


def test_it_runs_and_a_second_run_plans_nothing(cohort):
    cohort.configure()
    cohort.snakemake("benchmark")
    results = cohort.work / "cohort" / "results"
    with open(results / "benchmark" / "survival.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert {"disentangled student - wsi-only", "mcat", "snn", "transmil", "meanpool"} <= {row["name"] for row in rows}
    assert (results / "benchmark" / "survival.png").stat().st_size > 10_000
    assert "value of distillation" in (results / "benchmark" / "survival.md").read_text()
    report = json.loads((results / "benchmark" / "survival.json").read_text())
    assert all(row["cost"]["seconds"] > 0 and row["cost"]["numbers"] > 0 for row in report["rows"])
    assert not (results / "evaluation").exists()
    assert not (results / "receipts" / "predict-survival.json").exists()
    assert not cohort.planned("benchmark")

    cohort.configure(evaluation={"bootstrap": 200})
    assert cohort.planned("benchmark") == Counter({"benchmark_table": 1, "benchmark": 1})
    cohort.configure(methods={"mcat": {"layers": 1}})
    again = cohort.planned("benchmark")
    assert again == Counter({"train_runs": 1, "predict_benchmark": 1, "benchmark_table": 1, "benchmark": 1})
    cohort.configure(benchmark={"methods": [*METHODS, "abmil"]})
    assert cohort.planned("benchmark")["train_runs"] == 1

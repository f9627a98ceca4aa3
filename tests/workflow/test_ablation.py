"""The rules of the ablation, on a small cohort of features: what is planned, and that a second run plans nothing."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
import yaml

from tests.workflow.conftest import Project, merge

pytestmark = pytest.mark.workflow

SMALL = {
    "tasks": {"survival": {"type": "survival", "time": "os_months", "event": "os_event", "bins": 4}},
    "folds": {"n": 2},
    "training": {"device": "cpu", "logs": [], "model": {"epochs": 1}},
    "methods": {"run": ["disentangled"], "disentangled": {"model": {"dim": 16}}},
    "evaluation": {"bootstrap": 100},
}


class Cohort(Project):
    """Features and sheets of a planted cohort; what is not there yet is planned."""

    def configure(self, **changes):
        given = yaml.safe_load((self.work / "cohort" / "config.yaml").read_text())
        options = {**given, **SMALL}
        (self.work / "config.yaml").write_text(yaml.safe_dump(merge(options, changes)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, root):
    from histill.demo.planted import make
    from histill.features.store import write_store

    work = tmp_path_factory.mktemp("ablation")
    make(work / "cohort", write_store, patients=36, tiles=16, dim=16)
    return Cohort(root, work)


def test_a_variant_trains_only_what_it_changes(cohort):
    cohort.configure()
    planned = cohort.planned("ablation")
    before = {"transcriptome": 1, "cohort": 1, "audit": 1, "predict": 1}
    grid = {"train_runs": 3, "train_variant": 7, "predict_variant": 5, "ablation_table": 1, "ablation": 1}
    assert planned == Counter(before | grid)
    cohort.configure(training={"jobs": "per_fold"})
    per_fold = cohort.planned("ablation")
    assert (per_fold["train_runs"], per_fold["train_variant"]) == (6, 14)


def test_the_report_needs_no_ablation(cohort):
    cohort.configure(ablation={"own": {"two-tokens": {"model": {"tokens": 2}}}})
    assert not {name for name in cohort.planned() if "variant" in name or "ablation" in name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"run": ["linear-slide"]}}, "'disentangled' is not there"),
        (
            {"methods": {"disentangled": {"preset": "published"}}, "ablation": {"variants": ["no-aggregation"]}},
            "merges tiles by clusters of its own",
        ),
        ({"ablation": {"tasks": ["pfs"]}}, "no task 'pfs'"),
    ],
)
def test_an_ablation_that_cannot_be_made_is_refused_and_stops_nothing_else(cohort, changes, message):
    cohort.configure(**changes)
    done = cohort.snakemake("-n", "ablation", check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert cohort.planned()["report"] == 1


def test_it_runs_and_a_second_run_plans_nothing(cohort):
    one = {"variants": ["no-aggregation"]}
    cohort.configure(ablation=one)
    cohort.snakemake("ablation")
    folder = cohort.work / "cohort" / "results" / "evaluation"
    with open(folder / "ablation-survival.tsv", newline="") as handle:
        rows = {row["variant"]: row for row in csv.DictReader(handle, delimiter="\t")}
    assert list(rows) == ["full", "no-aggregation"]
    assert float(rows["no-aggregation"]["teacher:c_index:difference"]) == 0
    assert (folder / "ablation-survival.png").stat().st_size > 10_000
    assert not cohort.planned("ablation")

    cohort.configure(ablation=one, evaluation={"bootstrap": 200})
    assert set(cohort.planned("ablation")) == {"ablation_table", "ablation"}
    cohort.configure(ablation=one, methods={"disentangled": {"student": {"temperature": 3.0}}})
    replanned = cohort.planned("ablation")
    assert (replanned["train_runs"], replanned["train_variant"]) == (1, 1)  # students; the teacher stays
    cohort.configure(ablation={"variants": ["no-aggregation", "no-distillation"]})
    added = cohort.planned("ablation")
    assert (added["train_runs"], added["train_variant"]) == (1, 0)
    assert "predict" not in added

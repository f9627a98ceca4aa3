"""The rules of methods that pre-train without labels: once for all tasks, and again only for what it reads."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.workflow.conftest import Planted, Project

pytestmark = pytest.mark.workflow

SMALL = {
    "tasks": {"survival": {"type": "survival", "time": "os_months", "event": "os_event", "bins": 4}},
    "folds": {"n": 2},
    "training": {"device": "cpu", "logs": [], "model": {"epochs": 1}},
    "methods": {
        "run": ["mirror", "msrl", "retrieval"],
        "mirror": {
            "model": {
                "dim": 16,
                "heads": 2,
                "rna_heads": 2,
                "landmarks": 4,
                "latent": 4,
                "hidden": [8],
                "prototypes": 4,
            },
            "pretrain": {"epochs": 1},
            "probe": {"shots": [2], "draws": 2},
        },
        "msrl": {"model": {"dim": 16, "hidden": 8, "neighbours": 3}, "pretrain": {"epochs": 1, "projection": 8}},
    },
    "evaluation": {"bootstrap": 100},
}
DIAGNOSIS = {"diagnosis": {"type": "classification", "label": "diagnosis"}}
STAGES_A_TASK = 4 + 3 + 1  # mirror's slide, rna, fused, student; msrl's slide, student, both; retrieval


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, root):
    project = Planted.make(root, tmp_path_factory.mktemp("pretraining"), SMALL)
    (project.work / "genes.txt").write_text("TP53\nEGFR\nMYC\n")
    return project


@pytest.fixture(scope="module")
def done(cohort):
    cohort.configure()
    cohort.snakemake()
    return cohort


def trained(project: Project, **changes) -> Counter:
    """What would be trained again: method and stage, and for how many tasks."""
    project.configure(**changes)
    text = project.snakemake("-n").stdout
    lines = [line.split("wildcards: ")[1] for line in text.splitlines() if "stage=" in line]
    jobs = [dict(part.split("=") for part in line.split(", ")) for line in lines]
    return Counter(f"{job['method']} {job['stage']}" for job in jobs)


def test_pre_training_is_planned_once_for_all_tasks(cohort):
    planned = trained(cohort, tasks=DIAGNOSIS)
    assert planned["mirror pretrain"] == planned["msrl pretrain"] == planned["msrl pretrain_slide"] == 1
    assert sum(planned.values()) == 3 + 2 * STAGES_A_TASK


def test_it_runs_and_a_second_run_plans_nothing(done):
    done.configure()
    assert not done.planned()
    results = next(done.work.rglob("evaluation/survival.json")).parents[1]
    report = json.loads((results / "evaluation" / "survival.json").read_text())
    assert [model["name"] for model in report["models"]] == [
        *("mirror slide", "mirror rna", "mirror fused", "mirror student"),
        *("msrl slide", "msrl student", "msrl both", "retrieval"),
    ]
    assert {"few_shot", "alignment"} <= report.keys()
    assert "Pre-training" in (results / "report.html").read_text()


def test_only_what_stands_on_a_change_is_trained_again(done):
    assert trained(done, methods={"mirror": {"probe": {"draws": 3}}}) == Counter(
        {"mirror slide": 1, "mirror rna": 1, "mirror fused": 1, "mirror student": 1}
    )
    assert trained(done, methods={"mirror": {"student": {"temperature": 3.0}}}) == Counter({"mirror student": 1})
    assert trained(done, methods={"msrl": {"student": {"momentum": 0.5}}}) == Counter(
        {"msrl slide": 1, "msrl student": 1, "msrl both": 1}
    )
    own = {"pretrain": {"temperature": 0.3}}
    assert trained(done, methods={"msrl": own}) == Counter(
        {f"msrl {stage}": 1 for stage in ("pretrain", "pretrain_slide", "slide", "student", "both")}
    )
    assert trained(done, methods={"retrieval": {"neighbours": 3}}) == Counter({"retrieval train": 1})


def test_a_list_of_genes_is_an_input(done):
    listed = trained(done, methods={"mirror": {"genes": {"list": "genes.txt"}}})
    assert listed == Counter(
        {"mirror pretrain": 1, "mirror slide": 1, "mirror rna": 1, "mirror fused": 1, "mirror student": 1}
    )


def test_a_task_must_not_take_the_name_of_what_all_tasks_share(done):
    done.configure(tasks={"pretrain": {"type": "classification", "label": "diagnosis"}})
    failed = done.snakemake("-n", check=False)
    assert failed.returncode != 0
    assert "'pretrain' is the name of what is trained for all tasks" in failed.stdout + failed.stderr

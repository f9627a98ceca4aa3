"""A finished run of a planted cohort, made stage by stage in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from histill import plan
from histill.cohort import audit
from histill.cohort import stage as cohort
from histill.demo.planted import make
from histill.evaluation import stage as evaluation
from histill.features.store import write_store
from histill.methods import predict, train
from histill.provenance import write_json
from histill.report import stage as report
from histill.transcriptome import stage as transcriptome


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """Results of 40 patients, one task, two folds, two linear models. Do not change it: take `run`."""
    folder = tmp_path_factory.mktemp("trace")
    make(folder, write_store, patients=40, tiles=12, dim=16)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {
        "tasks": {"diagnosis": config["tasks"]["diagnosis"]},
        "folds": {"n": 2},
        "methods": {"run": ["linear-slide", "linear-both"]},
        "evaluation": {"bootstrap": 100},
    }
    checked = plan.load(config)
    config, results = checked.config, checked.results
    write_json(results / "config.json", config)
    transcriptome.run(path=checked.sheets.expression, config=config, results=results)
    cohort.run(sheets=checked.sheets, config=config, results=results)
    audit.run(config=config, results=results)
    for method in config["methods"]["run"]:
        train.run(task="diagnosis", method=method, stage="train", config=config, results=results)
    predict.run(task="diagnosis", config=config, results=results)
    evaluation.run(task="diagnosis", config=config, results=results)
    report.run(config=config, results=results)
    return results


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of the finished run that a test may damage."""
    return shutil.copytree(finished_run, tmp_path / "results")

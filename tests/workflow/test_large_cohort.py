"""A finished cohort of 2,000 slides: what is planned of it, and how often its files are looked at."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from histill import plan
from histill.batches import collect
from histill.cli.batch import run_slides
from histill.errors import HistillError
from histill.provenance import QUARANTINED
from histill.slides import inspect
from tests.workflow.conftest import Project

pytestmark = pytest.mark.workflow

SLIDES, BATCHES = 2_000, 32
STAGES = ("inspect", "tissue", "tiles", "features")
BATCH_JOBS = {f"{stage}_batch" for stage in STAGES}
COLLECTING = {*STAGES, "cohort", "audit", "report"}


@pytest.fixture(scope="module")
def benchmark(root) -> ModuleType:
    """The script that makes the cohort and measures it."""
    spec = importlib.util.spec_from_file_location("benchmark_large_cohort", root / "benchmarks" / "large_cohort.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def large(benchmark, root, tmp_path_factory) -> Project:
    """The cohort, finished, without models. Take back what you change."""
    project = Project(root, tmp_path_factory.mktemp("large") / "work")
    benchmark.make(project.work, SLIDES)
    project.snakemake()
    project.snakemake("--touch", "--forceall")
    return project


@pytest.fixture
def sheet(large):
    """Lines of slides.csv, which is as it was after the test."""
    path = large.work / "slides.csv"
    text, times = path.read_text(), os.stat(path)
    yield text.splitlines()
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_finished_cohort_plans_nothing(large):
    assert "Nothing to be done" in large.snakemake("-n").stdout


def test_one_slide_more_plans_its_batch_alone(large, sheet, benchmark, monkeypatch):
    monkeypatch.chdir(large.work)
    new = benchmark.row("another-slide", sheet[-1].split(",")[1])
    (large.work / "slides.csv").write_text("\n".join([*sheet, ",".join(new.values())]) + "\n")
    assert_one_batch(large.planned())


def test_one_slide_less_plans_its_batch_alone(large, sheet):
    (large.work / "slides.csv").write_text("\n".join(sheet[:-1]) + "\n")
    assert_one_batch(large.planned())


def assert_one_batch(planned: Counter) -> None:
    assert planned.keys() >= BATCH_JOBS | COLLECTING
    assert set(planned.values()) == {1}


def test_another_overlap_plans_tiles_and_what_follows(large):
    planned = large.planned("--config", "tiles={overlap: 0.25}")
    assert {job: planned.pop(f"{job}_batch") for job in ("tiles", "features")} == {
        "tiles": BATCHES,
        "features": BATCHES,
    }
    assert planned.keys() >= COLLECTING - {"inspect", "tissue"}
    assert set(planned.values()) == {1}
    assert not planned.keys() & {"inspect", "inspect_batch", "tissue", "tissue_batch"}


def test_a_plan_looks_at_every_slide_once(large, monkeypatch):
    monkeypatch.chdir(large.work)
    looked: Counter = Counter()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: looked.update([str(path)]) or stat(path, **how))
    slides = [slide.path for slide in plan.load("config.yaml").sheets.slides.values()]
    assert len(slides) == SLIDES
    assert {looked[path] for path in slides} == {1}
    assert looked.total() < SLIDES + 100

    looked.clear()
    plan.load("config.yaml", look=False)
    assert not {path for path in slides if looked[path]}, "a job of the run looks at its own slides alone"


def test_a_slide_that_vanishes_in_a_run_is_set_aside_alone(tmp_path, monkeypatch):
    """Jobs of other slides do not look for it, and its own says what is missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.svs").write_text("no slide")
    (tmp_path / "slides.csv").write_text("slide_id,patient_id,path\nthere,A,there.svs\ngone,B,gone.svs\n")
    config = {"cohort": {"slides": "slides.csv"}, "results": "results"}
    with pytest.raises(HistillError, match=r"'gone\.svs' does not exist"):
        plan.load(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for batch in ("there", "gone"):
        run_slides("inspect", inspect.run, Path("config.json"), batch, tmp_path / f"{batch}.json")
    there, gone = collect([tmp_path / "there.json", tmp_path / "gone.json"])[::-1]
    assert "no reader" in there.reason
    assert "gone.svs" in gone.reason
    assert (there.state, gone.state) == (QUARANTINED, QUARANTINED)

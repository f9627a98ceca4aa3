"""What reruns after which change: dry runs of the real DAG."""

from __future__ import annotations

import re
import shutil

import pytest

from histill.batches import assign

pytestmark = pytest.mark.workflow

SLIDES = {"inspect_batch", "inspect", "tissue_batch", "tissue"}
TILES = {"tiles_batch", "tiles"}
FEATURES = {"features_batch", "features"}
TRAINING = {"train_runs", "predict", "evaluate", "report"}


@pytest.fixture
def project(finished):
    """The finished cohort with its config restored after the test."""
    yield finished
    finished.configure()


def test_a_second_run_plans_nothing(project):
    assert not project.planned()
    assert "Nothing to be done" in project.snakemake("-n").stdout
    assert not project.planned(PYTHONHASHSEED="1")
    assert not project.planned(PYTHONHASHSEED="2")


def test_overlap_replans_tiles_and_what_follows(project):
    project.configure(tiles={"overlap": 0.25})
    assert set(project.planned()) == TILES | FEATURES | {"cohort", "audit"} | TRAINING


def test_tissue_options_replan_tissue_and_what_follows(project):
    project.configure(tissue={"min_area_mm2": 0.02})
    assert set(project.planned()) == {"tissue_batch", "tissue"} | TILES | FEATURES | {"cohort", "audit"} | TRAINING


def test_training_options_replan_training_only(project):
    project.configure(training={"model": {"weight_decay": 0.02}})
    assert set(project.planned()) == TRAINING


def test_student_options_leave_the_teacher_alone(project):
    project.configure(methods={"disentangled": {"student": {"temperature": 3.0}}})
    planned = project.planned()
    assert set(planned) == TRAINING
    assert planned["train_runs"] == 1


def test_evaluation_and_report_options(project):
    project.configure(evaluation={"bootstrap": 200})
    assert set(project.planned()) == {"evaluate", "report"}
    project.configure(report={"title": "Another title"})
    assert set(project.planned()) == {"report"}


def test_gene_sets_leave_slides_alone(project):
    project.configure(transcriptome={"gene_sets": {"shared_genes": "drop"}})
    assert set(project.planned()) == {"transcriptome", "cohort", "audit"} | TRAINING


def test_execution_options_replan_nothing(project):
    project.configure(features={"batch_size": 16, "device": "cpu"}, on_error="fail")
    assert not project.planned()


def test_a_key_that_only_comes_out_as_its_default_replans_nothing(project):
    project.configure(tiles={"overlap": 0.0, "size": 224})
    assert not project.planned()


def test_an_edit_of_comments_in_the_source_replans_nothing(project):
    for path in (project.source / "src").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    assert not project.planned()


def test_targets_by_name(finished, tmp_path):
    fresh = finished.copy(tmp_path)
    shutil.rmtree(fresh.work / "results")
    assert set(fresh.planned("features")) == SLIDES - {"inspect", "tissue"} | {"tiles_batch"} | FEATURES
    assert set(fresh.planned("transcriptome")) == {"transcriptome"}
    assert "report" in fresh.planned("report")


def test_a_new_slide_replans_its_batch_and_extracts_that_slide_alone(finished, tmp_path):
    project = finished.copy(tmp_path)
    sheet = project.work / "demo" / "slides.csv"
    lines = sheet.read_text().splitlines()
    header = lines[0].split(",")
    ids = [line.split(",")[header.index("slide_id")] for line in lines[1:]]
    patient = lines[1].split(",")[header.index("patient_id")]
    source = lines[1].split(",")[header.index("path")]
    shutil.copy(project.work / source, project.work / "demo" / "slides" / "new.svs")
    new = {"slide_id": "new", "patient_id": patient, "path": "demo/slides/new.svs"}
    sheet.write_text("\n".join([*lines, ",".join(new.get(column, "") for column in header)]) + "\n")

    planned = project.planned("features")
    assert [planned[f"{stage}_batch"] for stage in ("inspect", "tissue", "tiles", "features")] == [1, 1, 1, 1]
    assert len(assign(ids, 4)) == len(assign([*ids, "new"], 4)), "the test wants a cohort that keeps its batch count"

    project.snakemake("features")
    logs = "".join(path.read_text() for path in (project.work / "results" / "logs" / "features").glob("*.log"))
    batch = next(name for name, members in assign([*ids, "new"], 4).items() if "new" in members)
    log = (project.work / "results" / "logs" / "features" / f"{batch}.log").read_text()
    assert "features new: ok" in log
    assert re.findall(r"features (\S+): ok", log) == ["new"]
    assert logs.count("features new: ok") == 1
    assert not project.planned("features")


def test_a_replaced_slide_is_done_again_and_a_touched_one_is_not(finished, tmp_path):
    project = finished.copy(tmp_path)
    slides = sorted((project.work / "demo" / "slides").glob("*.svs"))
    first, second = slides[0], slides[1]
    shutil.copyfile(second, first)  # other content under the first one's name
    assert project.planned("features")["inspect_batch"] == 1
    project.snakemake("features")
    done = "".join(path.read_text() for path in (project.work / "results" / "logs" / "features").glob("*.log"))
    assert f"features {first.stem}: ok" in done
    second.touch()
    project.snakemake("features")
    logs = "".join(path.read_text() for path in (project.work / "results" / "logs" / "features").glob("*.log"))
    assert f"features {second.stem}: up to date" in logs
    assert not project.planned("features")

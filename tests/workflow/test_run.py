"""The finished run of the small cohort, and runs that must end before they start."""

from __future__ import annotations

import json

import pytest
import yaml

pytestmark = pytest.mark.workflow


def receipts(project, stage):
    return json.loads((project.work / "results" / "receipts" / f"{stage}.json").read_text())


def test_it_ends_at_the_report(finished):
    page = (finished.work / "results" / "report.html").read_text()
    assert "disentangled student" in page
    assert str(finished.work) not in page


def test_the_corrupt_slide_is_quarantined_and_the_mended_one_is_used(finished):
    slides = receipts(finished, "features")["slides"]
    states = [slide["state"] for slide in slides]
    assert states.count("quarantined") == 1
    bad = next(slide for slide in slides if slide["state"] == "quarantined")
    assert bad["reason"]
    assert bad["mend"]
    inspected = {slide["slide"]: slide for slide in receipts(finished, "inspect")["slides"]}
    sources = [slide["info"].get("mpp_source") for slide in inspected.values()]
    assert sum(source is not None and "sheet" in source for source in sources) == 1


def test_modalities_are_counted(finished):
    counts = receipts(finished, "cohort")["counts"]
    assert counts["patients"] == 20
    assert 0 < counts["with_both"] < 20
    assert counts["without_outcome:diagnosis"] > 0


def test_the_student_predicts_patients_without_rna_and_without_outcome(finished):
    import pyarrow.parquet as pq

    results = finished.work / "results"
    patients = pq.read_table(results / "cohort" / "patients.parquet").to_pandas().set_index("patient_id")
    folder = results / "models" / "diagnosis" / "disentangled" / "fold0-seed0"
    student = pq.read_table(folder / "student" / "predictions.parquet").to_pandas()
    teacher = pq.read_table(folder / "teacher" / "predictions.parquet").to_pandas()
    assert set(student.patient_id) == set(patients.index[patients.has_slide])
    assert set(teacher.patient_id) == set(patients.index[patients.has_slide & patients.has_rna])
    assert set(student.split) >= {"train", "validation", "test", "unlabelled"}
    test = set(student.patient_id[student.split == "test"])
    assert all(patients.fold[patient] == 0 for patient in test)


def test_no_pickle_anywhere_in_the_results(finished):
    files = [path for path in (finished.work / "results" / "models").rglob("*") if path.is_file()]
    logs = {path.name.partition(".out.")[0] for path in files if path.parent.name == "logs"}
    assert logs <= {"events", "hparams.yaml"}
    suffixes = {path.suffix for path in files if path.parent.name != "logs"}
    assert suffixes <= {".json", ".safetensors", ".csv", ".parquet"}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"tiless": {}}, ["unknown key 'tiless' (did you mean 'tiles'?)"]),
        (
            {"tasks": {"diagnosis": {"label": "dx"}, "os": {"type": "survival", "time": "a", "event": "b"}}},
            ["needs column 'dx'", "needs column 'a'", "needs column 'b'"],
        ),
        ({"cohort": {"slides": "none.csv", "expression": "gone.tsv"}}, ["none.csv", "gone.tsv"]),
        ({"features": {"encoder": "unni"}}, ["no encoder 'unni'"]),
        ({"features": {"encoder": "uni"}}, ["10x is 1", "allow_off_recipe"]),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_written(finished, tmp_path, changes, messages):
    project = type(finished)(finished.source, tmp_path)
    (tmp_path / "demo").symlink_to(finished.work / "demo")
    project.configure(**changes)
    done = project.snakemake(check=False)
    assert done.returncode != 0
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_slides_alone_are_enough(finished, tmp_path):
    """No clinical sheet, no transcriptome, no task: features and a report."""
    project = type(finished)(finished.source, tmp_path)
    (tmp_path / "demo").symlink_to(finished.work / "demo")
    options = {"results": "results", "cohort": {"slides": "demo/slides.csv"}, "batch_size": 64}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    project.snakemake()
    assert (tmp_path / "results" / "report.html").exists()
    assert not project.planned()

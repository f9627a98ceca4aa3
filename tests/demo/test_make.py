"""The files of the synthetic cohort."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from histill.cohort import sheets as cohort_sheets
from histill.config import complete
from histill.demo.design import design, sheets
from histill.demo.make import make
from histill.provenance import file_digest

TASKS = {
    "survival": {"type": "survival", "time": "os_months", "event": "os_event"},
    "diagnosis": {"type": "classification", "label": "diagnosis"},
}


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(cohort, small, tmp_path):
    make(small, tmp_path, workers=2)
    # The sheet names its folder; everything else is independent of it.
    for folder in (cohort, tmp_path):
        assert str(folder) in (folder / "slides.csv").read_text()
    first, second = _digests(cohort), _digests(tmp_path)
    sheet = (tmp_path / "slides.csv").read_text().replace(str(tmp_path), str(cohort))
    assert sheet == (cohort / "slides.csv").read_text()
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == {"slides.csv"}


def test_sheets_in_memory_agree_with_the_files(cohort, small):
    files = {
        "slides": str(cohort / "slides.csv"),
        "clinical": str(cohort / "clinical.csv"),
        "expression": str(cohort / "expression.tsv.gz"),
    }
    config = complete({"cohort": files, "tasks": TASKS, "folds": {"n": 2}})
    read = cohort_sheets.load(config)
    computed = sheets(small, folder=cohort, tasks=read.tasks)
    assert computed == read
    assert list(computed.slides) == list(read.slides)
    assert list(computed.clinical.rows) == list(read.clinical.rows)


def test_expression_holds_the_patients_with_rna(cohort, small):
    lines = gzip.decompress((cohort / "expression.tsv.gz").read_bytes()).decode().splitlines()
    assert lines[0].split("\t") == ["gene", *(patient.patient_id for patient in design(small) if patient.has_rna)]
    assert all(cell.isdigit() for cell in lines[1].split("\t")[1:])
    assert len({line.split("\t")[0] for line in lines}) == len(lines)


def test_folder_says_what_it_is(cohort, small):
    text = (cohort / "README.txt").read_text()
    assert "synthetic" in text
    corrupt = [slide.slide_id for patient in design(small) for slide in patient.slides if slide.corrupt]
    assert f"{corrupt[0]} is cut off" in text
    with open(cohort / "truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    assert {row["patient_id"] for row in truth} == {patient.patient_id for patient in design(small)}
    assert not list(cohort.rglob(".*")), "temporary files are left"

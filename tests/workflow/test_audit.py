"""A leak that was planted in the cohort ends the run before anything is trained on it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.workflow

COPY = "SYN-900"


def append(sheet: Path, /, **cells: str) -> None:
    """Add a row to a sheet."""
    rows = list(csv.reader(sheet.open()))
    with sheet.open("a", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerow([cells.get(column, "") for column in rows[0]])


def resaved(source: Path, target: Path) -> None:
    """The pixels of a slide, compressed again, in a file of another format with nothing of the first one's metadata."""
    pixels = tifffile.imread(source, level=0)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 60]
    pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(target, np.ascontiguousarray(pixels), resolution=(20000, 20000), **options)


@pytest.fixture
def leaking(finished, tmp_path):
    """Function that adds a patient whose slide is a copy of another one's, in another fold.

    Returns the project, and slide and patient that were copied.
    """

    def plant(save, name):
        project = finished.copy(tmp_path)
        results, demo = project.work / "results", project.work / "demo"
        first = json.loads((results / "receipts" / "features.json").read_text())["slides"]
        slide = next(receipt for receipt in first if receipt["state"] == "ok")
        patient = slide["info"]["patient_id"]
        rows = {row["slide_id"]: row for row in csv.DictReader((demo / "slides.csv").open())}
        save(project.work / rows[slide["slide"]]["path"], demo / "slides" / name)
        append(demo / "slides.csv", slide_id="copy", patient_id=COPY, path=f"demo/slides/{name}", stain="H&E")
        append(demo / "clinical.csv", patient_id=COPY, diagnosis="type A", os_months="9", os_event="1")
        assignment = json.loads((results / "cohort" / "folds.json").read_text())["assignment"]
        assignment[COPY] = [1 - assignment[patient][0]]
        lines = [f"{own},{fold}" for own, (fold,) in assignment.items()]
        (project.work / "folds.csv").write_text("\n".join(["patient_id,fold", *lines]) + "\n")
        return project, slide["slide"], patient

    return plant


@pytest.mark.parametrize(
    ("save", "name", "alike"),
    [(shutil.copyfile, "other-name.svs", "are one file"), (resaved, "saved-again.tiff", "show one picture")],
    ids=["copied", "saved-again"],
)
def test_one_slide_under_two_patients_ends_the_run(leaking, save, name, alike):
    project, slide, patient = leaking(save, name)
    folds = {"n": 2, "file": "folds.csv"}
    project.configure(folds=folds)
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "rule train_runs" not in done.stdout + done.stderr
    log = (project.work / "results" / "logs" / "audit.log").read_text()
    assert f"slide '{slide}' of patient '{patient}' and slide 'copy' of patient '{COPY}' {alike}" in " ".join(
        log.split()
    )
    assert f"'{COPY}' is tested in fold" in log
    assert "mend:" in log
    report = json.loads((project.work / "results" / "cohort" / "audit.json").read_text())
    assert report["state"] == "leak"
    assert [finding["patients"] for finding in report["findings"]] == [[patient, COPY]]

    project.configure(folds={**folds, "audit": "warn"})
    project.snakemake("audit")
    assert json.loads((project.work / "results" / "receipts" / "audit.json").read_text())["state"] == "leak"


def test_a_clean_cohort_is_audited(finished):
    report = json.loads((finished.work / "results" / "cohort" / "audit.json").read_text())
    assert report["state"] == "ok", report["findings"]
    assert report["checked"]["patients"] == 20
    assert report["checked"]["slides"] > 15
    assert report["checked"]["profiles"] > 10

"""A stage that fails after a change is part of the next run, and so is all behind it.

Snakemake removes what a failed job was to make. That alone is no reason to make it again: the target is there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

SLIDES = ["inspect_batch", "inspect", "tissue_batch", "tissue", "tiles_batch", "tiles", "features_batch", "features"]
BEHIND = ["cohort", "audit", "train_runs", "predict", "evaluate", "report"]


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    return finished.copy(tmp_path_factory.mktemp("failed"))


@pytest.mark.parametrize(
    ("changes", "removed", "planned"),
    [
        ({"slides": {"resample": "lanczos"}}, "inspect/*", [*SLIDES, *BEHIND]),
        ({"tissue": {"min_area_mm2": 0.011}}, "tissue/*", [*SLIDES[2:], *BEHIND]),
        ({"tiles": {"min_tissue": 0.3}}, "tiles/*", [*SLIDES[4:], *BEHIND]),
        ({"tiles": {"min_tissue": 0.3}}, "tiles.json", [*SLIDES[4:], *BEHIND]),
        ({"features": {"allow_off_recipe": True}}, "features/*", [*SLIDES[6:], *BEHIND]),
        ({"features": {"allow_off_recipe": True}}, "features.json", [*SLIDES[6:], *BEHIND]),
        ({"transcriptome": {"gene_sets": {"min_genes": 9}}}, "transcriptome.json", ["transcriptome", *BEHIND]),
        ({"folds": {"seed": 5}}, "cohort.json", BEHIND),
        ({"folds": {"audit": "warn"}}, "audit.json", BEHIND[1:]),
        ({"methods": {"linear": {"components": 8}}}, "train/*/linear-both-*.json", BEHIND[2:]),
        ({"training": {"model": {"epochs": 3}}}, "train/*/*teacher.json", BEHIND[2:]),
        ({"seeds": [1, 2]}, "train/*/*.json", BEHIND[2:]),
        ({"evaluation": {"bootstrap": 120}}, "../evaluation/*", BEHIND[4:]),
    ],
)
def test_what_a_failed_job_left_behind_is_not_taken_for_done(project, changes, removed, planned):
    project.configure(**changes)
    receipts = project.work / "results" / "receipts"
    kept = {path: (path.read_bytes(), path.stat()) for path in receipts.glob(removed) if path.is_file()}
    assert kept
    for path in kept:
        path.unlink()
    try:
        assert set(project.planned()) == set(planned)
    finally:
        for path, (content, status) in kept.items():
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_table_that_is_gone_is_made_again(project):
    project.configure()
    assert not project.planned()
    (project.work / "results" / "evaluation" / "diagnosis.tsv").unlink()
    assert set(project.planned()) == {"evaluate", "report"}


def fail(project, folder: Path, command: str) -> None:
    """A run in which a command of histill fails."""
    (folder / "histill").write_text(
        f'#!/bin/sh\n[ "$1" = {command} ] && echo "failed on purpose" && exit 3\n'
        f'exec "{Path(sys.executable).parent / "histill"}" "$@"\n'
    )
    (folder / "histill").chmod(0o755)
    done = project.snakemake("--keep-going", check=False, PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode != 0
    assert "failed on purpose" in done.stdout + done.stderr


def test_a_stage_that_failed_after_a_change_of_the_config_is_run_again(finished, tmp_path):
    project = finished.copy(tmp_path)
    project.configure(evaluation={"bootstrap": 120})
    fail(project, tmp_path, "evaluate")
    assert set(project.planned()) == {"evaluate", "report"}


@pytest.mark.parametrize(("command", "planned"), [("cohort", BEHIND), ("train", BEHIND[2:])])
def test_a_stage_that_failed_after_a_change_of_a_sheet_is_run_again(finished, tmp_path, command, planned):
    """Snakemake notes what the failed job has seen of the sheet as if it had been done."""
    project = finished.copy(tmp_path)
    sheet = project.work / "demo" / "clinical.csv"
    header, *rows = sheet.read_text().splitlines()
    place = header.split(",").index("diagnosis")
    changed = next(number for number, row in enumerate(rows) if row.split(",")[place])
    cells = rows[changed].split(",")
    cells[place] = next(row.split(",")[place] for row in rows if row.split(",")[place] not in ("", cells[place]))
    rows[changed] = ",".join(cells)
    sheet.write_text("\n".join([header, *rows]) + "\n")
    fail(project, tmp_path, command)
    assert set(project.planned()) == set(planned)

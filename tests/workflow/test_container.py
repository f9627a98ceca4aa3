"""Jobs in an image: what Snakemake asks of Apptainer, answered by a stand-in that notes it and runs the job outside."""

from __future__ import annotations

import pytest

from tests.workflow.conftest import Planted

pytestmark = pytest.mark.workflow

APPTAINER = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit; fi
printf '%s\\n' "$*" >> "{notes}"
while [ "$1" != sh ] && [ "$1" != bash ]; do shift; done
exec "$@"
"""


@pytest.fixture
def planted(root, tmp_path):
    project = Planted.make(root, tmp_path, {"folds": {"n": 2}, "methods": {"run": ["linear-slide"]}})
    project.configure()
    return project


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """The notes of a program that takes Apptainer's place."""
    notes = tmp_path / "notes.txt"
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER.format(notes=notes))
    program.chmod(0o755)
    (program.parent / "singularity").symlink_to(program)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return notes


def test_every_job_runs_in_the_image(planted, apptainer):
    (planted.work / "histill.sif").touch()
    planted.snakemake("cohort", "--sdm", "apptainer", "--apptainer-args", "--nv --bind /data/slides")
    calls = apptainer.read_text().splitlines()
    assert len(calls) == 2  # transcriptome, cohort
    for call in calls:
        assert call.startswith("exec ")
        assert "--nv --bind /data/slides" in call
        assert " histill.sif " in call
        assert " histill " in call.split(" histill.sif ")[1]


def test_an_image_that_is_not_there_is_named_with_the_mend(planted, apptainer):
    done = planted.snakemake("-n", "--sdm", "apptainer", check=False)
    assert done.returncode != 0
    assert "histill.sif" in done.stderr
    assert "apptainer build histill.sif envs/apptainer.def" in done.stderr.split("mend:")[1]
    planted.configure(container="docker://registry.example.org/histill:0.1.0")
    planted.snakemake("-n", "--sdm", "apptainer")


def test_without_it_no_image_is_needed(planted, apptainer):
    planted.snakemake("transcriptome")
    assert not apptainer.exists()

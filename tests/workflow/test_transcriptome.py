"""What plans the transcriptome again: dry runs on a folder of files, one a sample."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from histill.transcriptome import gene_sets
from tests.workflow.conftest import Project

pytestmark = pytest.mark.workflow

GENES = sorted(
    {gene for space in ("tumor", "microenvironment") for own in gene_sets.shipped(space).values() for gene in own}
)
SUMMARY = "".join(f"{name}\t9\t9\t9\n" for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"))


def star(path, seed):
    """A file as STAR writes one for a sample."""
    counts = np.random.default_rng(seed).poisson(40, len(GENES))
    path.write_text(SUMMARY + "".join(f"{gene}\t{n}\t{n}\t0\n" for gene, n in zip(GENES, counts, strict=True)))


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """Six patients in a folder of STAR's files, and the table of a user's own ids; the transcriptome is done."""
    work = tmp_path_factory.mktemp("work")
    (work / "star").mkdir()
    for number in range(6):
        star(work / "star" / f"PT{number}ReadsPerGene.out.tab", number)
    (work / "annotation.csv").write_text("id,symbol\nENSG00000141510,TP53\n")
    (work / "clinical.csv").write_text("patient_id,group\n" + "".join(f"PT{n},{'ab'[n % 2]}\n" for n in range(6)))
    # Never opened: the transcriptome needs no slide, a cohort needs one.
    (work / "slide.tif").write_bytes(b"")
    (work / "slides.csv").write_text("slide_id,patient_id,path\ns0,PT0,slide.tif\n")
    matrix = {"annotation": "annotation.csv", "ids": "symbol"}
    config = {
        "results": "results",
        "cohort": {"slides": "slides.csv", "clinical": "clinical.csv", "expression": "star"},
        "tasks": {"group": {"type": "classification", "label": "group"}},
        "folds": {"n": 2},
        "transcriptome": {"matrix": matrix},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    project = Project(root, work)
    project.snakemake("transcriptome")
    return project


@pytest.fixture(autouse=True)
def done(project):
    """Every test begins with a finished transcriptome."""
    project.snakemake("transcriptome")
    assert not project.planned("transcriptome")


def test_another_annotation_plans_it_again(project):
    (project.work / "annotation.csv").write_text("id,symbol\nENSG00000141510,TP53\nENSG00000136997,MYC\n")
    assert set(project.planned("transcriptome")) == {"transcriptome"}


def test_one_file_of_a_folder_plans_it_again(project):
    star(project.work / "star" / "PT3ReadsPerGene.out.tab", 33)
    assert set(project.planned("transcriptome")) == {"transcriptome"}


def test_one_more_file_in_a_folder_plans_it_again(project):
    star(project.work / "star" / "PT6ReadsPerGene.out.tab", 6)
    assert set(project.planned("transcriptome")) == {"transcriptome"}


def test_a_file_that_is_not_read_plans_nothing(project):
    (project.work / "star" / "notes.txt").write_text("nothing of the samples")
    assert not project.planned("transcriptome")

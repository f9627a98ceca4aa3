"""The student of MIRROR: what it begins with, and who teaches it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from histill.cohort.tasks import Task
from histill.data.fold import Cohort
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.methods.mirror.student import Student
from histill.provenance import file_digest


@pytest.fixture(scope="module")
def brief(planted, train_stages):
    results, config, _ = planted(45, epochs=2)
    config["methods"]["mirror"]["probe"]["shots"] = []
    train_stages(results, config, "mirror", "pretrain", "fused", "student")
    return results, config


def folder(results, stage):
    return train.run_folder(results, "pretrain" if stage == "pretrain" else "os", "mirror", stage, 0, 0)


def test_it_begins_with_the_slide_encoder_and_the_head_of_its_teacher(brief):
    teacher = Checkpoint.read(folder(brief[0], "fused"))
    network = Student(teacher.labels.outputs, teacher.arguments["pretrained"])
    network.begin({name: torch.from_numpy(value) for name, value in teacher.weights.items()})
    own = network.state_dict()
    taken = {name for name in own if not name.startswith("tell.")}
    assert taken <= teacher.weights.keys()
    assert {name.split(".")[0] for name in taken} == {"slide", "head"}
    for name in taken:
        np.testing.assert_array_equal(own[name].numpy(), teacher.weights[name])


def test_it_reads_the_slide_alone_and_holds_no_encoder_of_genes(brief):
    checkpoint = Checkpoint.read(folder(brief[0], "student"))
    assert checkpoint.expression is None
    assert {name.split(".")[0] for name in checkpoint.weights} == {"slide", "tell", "head"}


@pytest.mark.parametrize("slides", ["bag", "mean"])
def test_patients_without_rna_teach_the_student_and_nobody_before_it(brief, clone, train_stages, slides):
    """With several slides a patient as well."""
    results, config = brief
    cohort, task = Cohort.read(results, "colour-texture"), Task.from_config("os", config["tasks"]["os"])
    without = next(p for p in cohort.select(task, 0, "train", slide=True, rna=False) if not cohort.value(p, "has_rna"))
    cells = {"P001": {"slides": ["P001-1", "P002-1"]}, "P006": {"slides": ["P006-1", "P007-1"]}}
    made = []
    for corrupt in ((), (without,)):
        other, other_config = clone(results, config, corrupt=corrupt, patients=cells)
        other_config["training"]["slides"] = slides
        train_stages(other, other_config, "mirror", "pretrain", "fused", "student")
        made.append({s: file_digest(folder(other, s) / "model.safetensors") for s in ("pretrain", "fused", "student")})
    same = {stage: made[0][stage] == made[1][stage] for stage in made[0]}
    assert same == {"pretrain": True, "fused": True, "student": False}
    checkpoint = Checkpoint.read(folder(other, "student"))
    table = predict.predict(checkpoint, Cohort.read(other, "colour-texture"), task, 0, device="cpu")
    assert len(table["patient_id"]) == 45
    assert np.isfinite(table["risk"]).all()

"""MSRL through the workflow: who lends, who borrows, and what leaves with the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort
from histill.errors import HistillError
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.methods.fold_run import UNFINISHED
from histill.methods.progress import TrainingProgress
from histill.provenance import file_digest, read_json
from histill.stages import PRETRAIN


@pytest.fixture(scope="module")
def brief(planted, train_stages):
    results, config, _ = planted(45, epochs=2)
    train_stages(results, config, "msrl")
    return results, config


def folder(results, stage="student"):
    return train.run_folder(results, PRETRAIN if stage == PRETRAIN else "os", "msrl", stage, 0, 0)


def read(results, config, stage="student"):
    genes = ExpressionTable.read(results, config) if stage == "both" else None
    task = Task.from_config("os", config["tasks"]["os"])
    return Checkpoint.read(folder(results, stage)), Cohort.read(results, "colour-texture", genes), task


def learned(cohort, task, rna=False) -> list[str]:
    return cohort.select(task, 0, "train", slide=True, rna=rna)


def test_the_buffer_holds_training_patients_with_rna(brief):
    checkpoint, cohort, task = read(*brief)
    paired = learned(cohort, task, rna=True)
    assert len(paired) < len(learned(cohort, task))
    assert sorted(checkpoint.weights["buffer.case"]) == sorted(cohort.codes(paired))
    assert read_json(folder(brief[0]) / "receipt.json")["figures"]["buffer"] == len(paired)


def test_a_model_that_sees_no_genes_borrows_from_all_training_patients(brief):
    checkpoint, cohort, task = read(*brief, "slide")
    assert sorted(checkpoint.weights["buffer.case"]) == sorted(cohort.codes(learned(cohort, task)))
    assert not any(name.startswith(("genes.", "inductor.")) for name in checkpoint.weights)


def test_withheld_transcriptomes_are_in_no_buffer(brief, clone, train_stages):
    results, config = clone(*brief)
    config["training"]["hide_rna"] = 0.5
    train_stages(results, config, "msrl", PRETRAIN, "student", "both")
    checkpoint, cohort, task = read(results, config)
    seen = cohort.without_rna(0, 0.5, 0)
    assert sorted(checkpoint.weights["buffer.case"]) == sorted(seen.codes(learned(seen, task, rna=True)))
    assert 0 < len(learned(seen, task, rna=True)) < len(learned(cohort, task, rna=True))


@pytest.mark.parametrize("stage", ["student", "slide", "both"])
def test_no_patient_borrows_from_its_own_row(brief, stage):
    """And it would, if it were not told which row that is."""
    checkpoint, cohort, task = read(*brief, stage)
    patients = learned(cohort, task, rna=True)
    codes = cohort.codes(patients)

    def own_row(own) -> list[bool]:
        outputs = predict.each_output(checkpoint, own, patients, device="cpu")
        return [code in output["neighbours"]["case"] for code, output in zip(codes, outputs, strict=True)]

    assert not any(own_row(cohort))
    assert any(own_row(replace(cohort, secret=b"another")))


@pytest.mark.parametrize("stage", ["student", "slide", "both"])
def test_a_prediction_does_not_depend_on_who_else_is_predicted(brief, stage):
    checkpoint, cohort, task = read(*brief, stage)
    patients = cohort.select(task, 0, "test", slide=True, rna=True)
    together = predict.network_outputs(checkpoint, cohort, patients, device="cpu")["logits"]["case"]
    before = {name: value.copy() for name, value in checkpoint.weights.items()}
    for index in (0, len(patients) - 1):
        alone = predict.network_outputs(checkpoint, cohort, [patients[index]], device="cpu")["logits"]["case"]
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=0)
    assert all(np.array_equal(value, before[name]) for name, value in checkpoint.weights.items())


def test_no_patient_is_named_in_a_model(brief):
    results, _ = brief
    cohort = Cohort.read(results, "colour-texture")
    for stage in (PRETRAIN, "slide", "student", "both"):
        files = [path for path in folder(results, stage).rglob("*") if path.is_file()]
        assert {"model.safetensors", "transforms.safetensors", "config.json"} <= {path.name for path in files}
        for path in files:
            content = path.read_bytes()
            assert not [p for p in cohort.patients["patient_id"] if p.encode() in content], path


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(brief, clone, train_stages, monkeypatch):
    class Stop(Exception):
        pass

    def stop(self, told):
        if told[0] > 1.4:
            raise Stop

    results, config = clone(*brief)
    train_stages(results, config, "msrl", PRETRAIN)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "at", stop)
        with pytest.raises(Stop):
            train_stages(results, config, "msrl", "student")
    assert (folder(results) / UNFINISHED).exists()
    assert "goes on after epoch 0" in train_stages(results, config, "msrl", "student")[0]
    for name in ("model.safetensors", "transforms.safetensors", "curve.csv"):
        assert file_digest(folder(results) / name) == file_digest(folder(brief[0]) / name), name


def test_a_case_is_a_patient_however_many_slides(brief, clone, train_stages):
    """`training.slides: mean` is for networks that look at slides one by one."""
    cells = {"P001": {"slides": ["P001-1", "P002-1"]}, "P006": {"slides": ["P006-1", "P007-1"]}}
    made = []
    for slides in ("bag", "mean"):
        results, config = clone(*brief, patients=cells)
        config["training"]["slides"] = slides
        train_stages(results, config, "msrl")
        checkpoint, cohort, task = read(results, config)
        made.append(predict.predict(checkpoint, cohort, task, 0, device="cpu"))
        assert checkpoint.provenance["slides"] == "bag"
    assert made[0] == made[1]
    assert len(made[0]["patient_id"]) == 45


@pytest.mark.parametrize(
    "options",
    [
        {"model": {"pooling": "attention"}},
        {"model": {"graph": "euclidean"}},
        {"model": {"links": "all", "policy": "fifo"}, "student": {"buffer": 4}},
        {"student": {"begin": "random", "warmup": 1}},
        {"student": {"update": "online", "mixup": 0.2}},
    ],
    ids=["attention", "euclidean", "published graph", "warm-up", "online"],
)
def test_variants_are_trained_and_predict(brief, clone, train_stages, options):
    results, config = clone(*brief)
    for section, own in options.items():
        config["methods"]["msrl"][section] |= own
    train_stages(results, config, "msrl", PRETRAIN, "student")
    checkpoint, cohort, task = read(results, config)
    risks = predict.predict(checkpoint, cohort, task, 0, device="cpu")["risk"]
    assert np.isfinite(risks).all()
    assert len(set(risks)) > 40
    assert risks != predict.predict(*read(*brief), 0, device="cpu")["risk"]


def test_gene_groups_of_which_nothing_was_measured_are_refused(brief, clone, train_stages, tmp_path):
    results, config = clone(*brief)
    (tmp_path / "groups.gmt").write_text("one\t-\tNOSUCHGENE1\tNOSUCHGENE2\n")
    config["methods"]["msrl"]["model"]["groups"] = str(tmp_path / "groups.gmt")
    with pytest.raises(HistillError, match=r"methods\.msrl\.model\.groups: the expression table has no gene of"):
        train_stages(results, config, "msrl", PRETRAIN)


def test_validation_patients_may_all_lack_rna(brief, clone, train_stages):
    _, cohort, task = read(*brief)
    cells = {patient: {"has_rna": False} for patient in cohort.select(task, 0, "validation", slide=True, rna=False)}
    results, config = clone(*brief, patients=cells)
    train_stages(results, config, "msrl", PRETRAIN, "student")

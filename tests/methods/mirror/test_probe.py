"""Linear heads on MIRROR's frozen encoders: whom the few-shot heads see, whom a probe predicts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort
from histill.features.store import Group, store_path, write_store
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.methods.mirror import training
from histill.provenance import read_json


@pytest.fixture(scope="module")
def pretrained(planted, train_stages):
    results, config, _ = planted(45, epochs=2)
    train_stages(results, config, "mirror", "pretrain")
    return results, config


@pytest.fixture
def drawn(monkeypatch):
    """Examples of each head that is fitted, the main one first."""
    found = []
    fit = training.ridge_head

    def recorded(examples, *arguments, **options):
        found.append(examples)
        return fit(examples, *arguments, **options)

    monkeypatch.setattr(training, "ridge_head", recorded)
    return found


def table_of(results, config, stage, task="os"):
    genes = None if stage == "slide" else ExpressionTable.read(results, config)
    cohort = Cohort.read(results, "colour-texture", genes)
    definition = Task.from_config(task, config["tasks"][task])
    checkpoint = Checkpoint.read(train.run_folder(results, task, "mirror", stage, 0, 0))
    return predict.predict(checkpoint, cohort, definition, 0, device="cpu"), checkpoint, cohort


@pytest.mark.parametrize("stage", ["slide", "rna", "fused"])
def test_few_shot_heads_see_as_many_of_each_class_and_nobody_twice(pretrained, train_stages, drawn, stage):
    results, config = pretrained
    config["methods"]["mirror"]["probe"] |= {"shots": [2, 4, 1000], "draws": 3}
    train_stages(results, config, "mirror", stage, task="dx")
    table, _, cohort = table_of(results, config, stage, "dx")
    task = Task.from_config("dx", config["tasks"]["dx"])
    everyone, *few = drawn
    learned = [p for p in table["patient_id"] if cohort.split(task, 0, p) in ("train", "validation")]
    assert len(everyone.patient) == len(learned) < len(table["patient_id"])
    labels = np.array([cohort.label(task, patient) for patient in learned])
    assert everyone.label.tolist() == ["ab".index(label) for label in labels]
    for shots, heads in zip((2, 4, 1000), (few[:3], few[3:6], few[6:]), strict=True):
        for head in heads:
            assert len(set(head.patient)) == len(head.patient)
            assert Counter(labels[head.patient]) == {c: min(shots, n) for c, n in Counter(labels).items()}
    assert len({tuple(sorted(head.patient)) for head in few[3:6]}) == 3
    figures = read_json(train.run_folder(results, "dx", "mirror", stage, 0, 0) / "receipt.json")["figures"]
    assert figures["few_shot"] == [
        [shots, draw, len(few[3 * row + draw].patient)] for row, shots in enumerate((2, 4, 1000)) for draw in range(3)
    ]


def test_one_patient_of_each_class_is_enough(pretrained, clone, train_stages):
    results, config = clone(*pretrained)
    config["methods"]["mirror"]["probe"] |= {"shots": [1], "draws": 1}
    train_stages(results, config, "mirror", "pretrain", "rna", task="dx")
    assert np.isfinite(table_of(results, config, "rna", "dx")[0]["p:a"]).all()


def test_who_is_predicted_follows_from_what_a_probe_reads(pretrained, clone, train_stages):
    """P001 has RNA and no slide; every fifth patient has no RNA."""
    cells = {"P001": {"has_slide": False, "slides": []}}
    results, config = clone(*pretrained, patients=cells)
    config["methods"]["mirror"]["probe"]["shots"] = []
    train_stages(results, config, "mirror", "pretrain", "slide", "rna", "fused")
    predicted = {stage: set(table_of(results, config, stage)[0]["patient_id"]) for stage in ("slide", "rna", "fused")}
    assert len(predicted["slide"]) == 44
    assert len(predicted["rna"]) == 36
    assert predicted["rna"] - predicted["fused"] == {"P001"}
    assert predicted["fused"] == predicted["slide"] & predicted["rna"]


def test_of_several_slides_the_mean_is_predicted(pretrained, clone, train_stages, drawn):
    """A slide without any tile says nothing, and teaches nothing."""
    cells = {"P002": {"slides": ["P002-1", "P003-1"]}, "P004": {"slides": ["P004-1", "bare"]}}
    results, config = clone(*pretrained, patients=cells)
    bare = Group(np.zeros((1, 16), np.float16), np.zeros((1, 2)), {"valid": np.zeros(1, bool)})
    write_store(results / store_path("colour-texture", "bare"), {"20x": bare}, {})
    config["training"]["slides"] = "mean"
    train_stages(results, config, "mirror", "pretrain", "slide", "fused")
    table, checkpoint, cohort = table_of(results, config, "slide")
    assert checkpoint.provenance["slides"] == "mean"
    assert len(table["patient_id"]) == 45
    assert len(drawn[0].x) == len(drawn[0].patient) == len(set(drawn[0].patient)) + (cohort.value("P002", "fold") > 0)
    outputs = predict.network_outputs(checkpoint, cohort, ["P002", "P003"], device="cpu")
    hazards = 1 / (1 + np.exp(-outputs["logits"]["20x"].double().numpy()))
    assert len(hazards) == 3
    np.testing.assert_allclose(hazards[1], hazards[2], atol=1e-6)
    both, alone = hazards[:2].mean(axis=0), hazards[2]
    lone = predict.network_outputs(checkpoint, cohort, ["P004"], device="cpu")
    assert lone["present"]["20x"].tolist() == [True, False]
    third = 1 / (1 + np.exp(-lone["logits"]["20x"][0].double().numpy()))
    risks = dict(zip(table["patient_id"], table["risk"], strict=True))
    for patient, hazard in (("P002", both), ("P003", alone), ("P004", third)):
        assert risks[patient] == pytest.approx(-np.cumprod(1 - hazard).sum(), rel=1e-5)

"""Pre-training of MIRROR through the workflow: what is transferred, read and resumed."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.methods import train
from histill.methods.checkpoint import Checkpoint, build_network
from histill.methods.fold_run import UNFINISHED
from histill.methods.mirror.training import magnification
from histill.methods.progress import TrainingProgress
from histill.provenance import file_digest, read_json
from histill.stages import PRETRAIN, files, model_recipe

HEADS = {"head.weight", "head.bias", "few_weight", "few_bias"}


@pytest.fixture(scope="module")
def brief(planted, train_stages):
    """Pre-trained and probed, after two epochs."""
    results, config, _ = planted(45, epochs=2)
    train_stages(results, config, "mirror", "pretrain", "slide", "rna", "fused")
    return results, config


def checkpoint_of(results, stage) -> Checkpoint:
    task = PRETRAIN if stage == "pretrain" else "os"
    return Checkpoint.read(train.run_folder(results, task, "mirror", stage, 0, 0))


@pytest.mark.parametrize("stage", ["slide", "rna", "fused"])
def test_only_heads_are_not_of_the_pre_training(brief, stage):
    pretrained, probe = (checkpoint_of(brief[0], name) for name in ("pretrain", stage))
    assert probe.weights.keys() - pretrained.weights.keys() == HEADS
    assert build_network(probe.kind, probe.arguments).state_dict().keys() == probe.weights.keys()
    for name in probe.weights.keys() - HEADS:
        np.testing.assert_array_equal(probe.weights[name], pretrained.weights[name])
    read = {name.split(".")[0] for name in probe.weights.keys() - HEADS}
    assert read == {"fused": {"slide", "rna", "align_slide", "align_rna"}}.get(stage, {stage})


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(brief, clone, train_stages, monkeypatch):
    class Stop(Exception):
        pass

    def stop(self, told):
        if told[0] > 1.4:
            raise Stop

    results, config = clone(*brief)
    folder = train.run_folder(results, PRETRAIN, "mirror", PRETRAIN, 0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "at", stop)
        with pytest.raises(Stop):
            train_stages(results, config, "mirror", PRETRAIN)
    assert (folder / UNFINISHED).exists()
    said = train_stages(results, config, "mirror", PRETRAIN)
    assert "goes on after epoch 0" in said[0]
    assert not (folder / UNFINISHED).exists()
    whole = train.run_folder(brief[0], PRETRAIN, "mirror", PRETRAIN, 0, 0)
    for name in ("model.safetensors", "transforms.safetensors", "curve.csv"):
        assert file_digest(folder / name) == file_digest(whole / name), name


def test_the_curve_tells_of_collapse(brief):
    curve = train.run_folder(brief[0], PRETRAIN, "mirror", PRETRAIN, 0, 0) / "curve.csv"
    header, *rows = curve.read_text().splitlines()
    assert len(rows) == 2
    sides = [f"{name}_{side}" for name in ("variance", "rank", "kl", "information") for side in ("slide", "rna")]
    assert {f"monitor_{name}" for name in ("token_variance", "modality_gap", *sides)} < set(header.split(","))
    assert np.isfinite([float(cell) for row in rows for cell in row.split(",")]).all()


def test_which_magnification_is_read():
    assert magnification(["10x", "20x"], None) == "20x"
    assert magnification(["10x", "5x"], None) == "10x"
    assert magnification(["10x", "20x"], "10x") == "10x"
    assert magnification(["table"], None) == "table"
    with pytest.raises(HistillError, match="no store has '40x'") as raised:
        magnification(["10x", "20x"], "40x")
    assert raised.value.mend == "set methods.mirror.model.magnification to one of 10x, 20x"
    with pytest.raises(HistillError, match=r"which of 2\.5x, 5x"):
        magnification(["2.5x", "5x"], None)


def test_stages_read_the_magnification_that_was_pre_trained(brief, clone, train_stages):
    results, config = clone(*brief)
    config["methods"]["mirror"]["model"]["magnification"] = "10x"
    train_stages(results, config, "mirror", "pretrain", "slide")
    for stage in ("pretrain", "slide"):
        assert list(checkpoint_of(results, stage).scalers) == ["10x"]


def test_genes_are_chosen_by_training_patients_and_kept_from_a_list(brief, clone, train_stages, tmp_path):
    results, config = clone(*brief)
    every = checkpoint_of(brief[0], "pretrain").expression.genes_["genes"]
    listed = tmp_path / "genes.txt"
    listed.write_text("\n".join([*every[:3], "NOSUCHGENE1"]))
    config["methods"]["mirror"]["genes"] |= {"rfe": "dx", "list": str(listed), "minimum": 8}
    train_stages(results, config, "mirror", "pretrain", "rna")
    pretrained, probe = (checkpoint_of(results, stage) for stage in ("pretrain", "rna"))
    chosen = pretrained.expression.genes_["genes"]
    assert set(every[:3]) < set(chosen) <= set(every)
    assert len(chosen) >= 8
    assert probe.expression.genes_["genes"] == chosen
    assert pretrained.arguments["genes"] == len(chosen)
    notes = read_json(train.run_folder(results, PRETRAIN, "mirror", PRETRAIN, 0, 0) / "receipt.json")["notes"]
    assert any("3 of 4 listed genes" in note for note in notes)
    assert files("mirror", "pretrain", config) == [str(listed)]


def test_genes_are_chosen_again_when_the_task_that_chooses_them_is_another(brief):
    """Without elimination pre-training depends on no task."""

    def recipe(rfe, label):
        config = copy.deepcopy(brief[1])
        config["tasks"]["dx"]["label"] = label
        config["methods"]["mirror"]["genes"]["rfe"] = rfe
        return model_recipe("mirror", "pretrain", config, task="os")

    assert recipe(None, "dx") == recipe(None, "grade")
    assert recipe("dx", "dx") != recipe("dx", "grade")


def test_genes_are_chosen_again_when_a_label_is_corrected(brief, clone, train_stages):
    results, config = clone(*brief)
    config["methods"]["mirror"]["genes"] |= {"rfe": "dx", "minimum": 8}
    train_stages(results, config, "mirror", "pretrain")
    place = results / "cohort" / "patients.parquet"
    table = pq.read_table(place)
    column = table.column_names.index("label:dx")
    pq.write_table(table.set_column(column, "label:dx", pa.array(table["label:dx"].to_pylist()[::-1])), place)
    said = train_stages(results, config, "mirror", "pretrain")
    assert "up to date" not in said[0]

"""Who is predicted and from which tiles: missing magnifications, slides without tiles, models that are stale."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from histill.cohort.tasks import Task
from histill.config import complete
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort, fit_features
from histill.errors import HistillError
from histill.evaluation import stage as evaluation
from histill.features.store import read_group, store_path, write_store
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.methods.outputs import risk
from histill.provenance import read_json
from histill.report.neighbours import neighbour_facts
from histill.stages import MODELS, READS, predictors, task_of

FOLD = (0, 0)
MINIMAL = {"results": "results", "cohort": {}, "tasks": {}}
STAGES = [(method, stage) for method in MODELS for stage in MODELS[method]]
ON_SLIDES = [
    (method, stage) for method in MODELS for stage in predictors(method) if "slide" in MODELS[method][stage].reads
]
# Networks with logits of each magnification; others read one alone, or both at once.
NETWORKS = [pair for pair in ON_SLIDES if pair[0] in ("disentangled", "wsi-only", "abmil")]


def rewrite(results, patient, levels=("10x", "20x"), valid=True):
    """Leave a patient's store these magnifications alone, or no valid tile."""
    path = results / store_path("colour-texture", f"{patient}-1")
    groups = {level: read_group(path, level) for level in levels}
    for group in groups.values():
        group.obs["valid"] &= valid
    write_store(path, groups, {})


def train_all(results, config, stages=STAGES, only=FOLD):
    said: list[str] = []
    for method, stage in stages:
        known = {"method": method, "stage": stage, "config": config, "results": results}
        train.run(task=task_of(method, stage, "os"), **known, only=only, log=said.append)
    return said


def predicted(results, config, method, stage, log=print):
    """Patient -> risk, the checkpoint, and the cohort as it was read."""
    table = ExpressionTable.read(results, config) if "rna" in MODELS[method][stage].reads else None
    cohort = Cohort.read(results, "colour-texture", table)
    checkpoint = Checkpoint.read(train.run_folder(results, "os", method, stage, *FOLD))
    task = Task.from_config("os", config["tasks"]["os"])
    found = predict.predict(checkpoint, cohort, task, FOLD[0], device="cpu", log=log)
    return dict(zip(found["patient_id"], found["risk"], strict=True)), checkpoint, cohort


@pytest.fixture(scope="module")
def mixed(planted):
    """A cohort whose first patient has 20x tiles alone; every third one lacks one of the magnifications."""
    results, config, _ = planted(45, epochs=2)
    for number in range(0, 45, 3):
        rewrite(results, f"P{number:03d}", ("20x",) if number % 2 == 0 else ("10x",))
    train_all(results, config)
    return results, config


@pytest.fixture(scope="module")
def whole(planted):
    """A cohort with both magnifications everywhere, trained in all folds."""
    results, config, _ = planted(45, epochs=2)
    config["methods"]["run"], config["seeds"] = ["abmil", "linear-slide"], [0]
    train_all(results, config, [("abmil", "train"), ("linear-slide", "train")], only=None)
    return results, config


@pytest.mark.parametrize("method", ["abmil", "retrieval", "linear-slide", "linear-both"])
def test_survival_at_the_ends_of_the_intervals_falls_with_time_and_with_risk(mixed, method):
    results, config = mixed
    _, checkpoint, cohort = predicted(results, config, method, "train")
    task = Task.from_config("os", config["tasks"]["os"])
    table = predict.predict(checkpoint, cohort, task, FOLD[0], device="cpu")
    columns = [name for name in table if name.startswith(predict.SURVIVAL)]
    assert [float(name.removeprefix(predict.SURVIVAL)) for name in columns] == checkpoint.labels.edges.tolist()
    assert len(columns) == config["tasks"]["os"]["bins"] - 1
    curves = np.column_stack([table[name] for name in columns])
    assert ((curves >= 0) & (curves <= 1)).all()
    assert (np.diff(curves) <= 0).all()
    order = np.argsort(table["risk"])
    if method != "abmil":  # hazards are proportional
        assert (np.diff(curves[order], axis=0) <= 1e-12).all()
    else:  # risk is minus the sum of survival, the open interval's too
        rest = -np.array(table["risk"]) - curves.sum(axis=1)
        assert ((rest >= -1e-6) & (rest <= curves[:, -1] + 1e-6)).all()


@pytest.mark.parametrize(("method", "stage"), ON_SLIDES)
def test_patients_that_lack_a_magnification_are_trained_on_and_predicted(mixed, method, stage):
    results, config = mixed
    risks, checkpoint, cohort = predicted(results, config, method, stage)
    wanted = [
        patient
        for patient in cohort.patients["patient_id"]
        if "rna" not in READS[checkpoint.kind] or cohort.value(patient, "has_rna")
        if method != "mirror" or cohort.bags.count(patient, "20x")  # reads the finest there is
    ]
    assert list(risks) == wanted
    assert np.isfinite(list(risks.values())).all()
    assert len(set(risks.values())) == len(wanted)


@pytest.mark.parametrize(("method", "stage"), NETWORKS)
def test_a_missing_magnification_says_nothing(mixed, method, stage):
    """The prediction of a patient with one magnification is that of its logits alone."""
    results, config = mixed
    risks, checkpoint, cohort = predicted(results, config, method, stage)
    outputs = predict.network_outputs(checkpoint, cohort, list(risks), device="cpu")
    present = {level: mask.numpy() for level, mask in outputs["present"].items()}
    alone = {level: risk(torch.sigmoid(logits)).numpy() for level, logits in outputs["logits"].items()}
    own = np.array(list(risks.values()))
    for level, other in (("10x", "20x"), ("20x", "10x")):
        only = present[level] & ~present[other]
        assert only.any()
        np.testing.assert_allclose(own[only], alone[level][only], rtol=1e-5)
    both = present["10x"] & present["20x"]
    assert not np.allclose(own[both], alone["10x"][both])


def test_a_model_of_both_magnifications_predicts_stores_with_one(whole):
    """Others are predicted as before, and a cohort that has no 10x at all as well."""
    results, config = whole
    before, _, _ = predicted(results, config, "abmil", "train")
    kept = {level: read_group(results / store_path("colour-texture", "P000-1"), level) for level in ("10x", "20x")}
    rewrite(results, "P000", ("20x",))
    after, checkpoint, cohort = predicted(results, config, "abmil", "train")
    assert after["P000"] != before["P000"]
    assert {p: r for p, r in after.items() if p != "P000"} == {p: r for p, r in before.items() if p != "P000"}
    cohort.bags = type(cohort.bags)(cohort.bags.folder, {"P000": ["P000-1"]})
    outputs = predict.network_outputs(checkpoint, cohort, ["P000"], device="cpu")
    assert {level: mask.tolist() for level, mask in outputs["present"].items()} == {"10x": [False], "20x": [True]}
    assert float(risk(torch.sigmoid(outputs["logits"]["20x"]))) == pytest.approx(after["P000"], rel=1e-5)
    write_store(results / store_path("colour-texture", "P000-1"), kept, {})


def test_a_magnification_of_no_training_patient_is_left_out_of_the_fold(planted):
    """Test and validation patients have 10x tiles; what is trained and predicted is as if they had none."""
    trained = {}
    for name, spared in (("some", True), ("none", False)):
        results, config, _ = planted(45, epochs=1)
        cohort, task = Cohort.read(results, "colour-texture"), Task.from_config("os", config["tasks"]["os"])
        for patient in cohort.patients["patient_id"]:
            if not spared or cohort.split(task, FOLD[0], patient) == "train":
                rewrite(results, patient, ("20x",))
        train_all(results, config, [("abmil", "train")])
        trained[name], checkpoint, _ = predicted(results, config, "abmil", "train")
        assert list(checkpoint.scalers) == ["20x"]
    assert trained["some"] == trained["none"]


def test_maps_of_slides_that_lack_a_magnification(mixed):
    """Every tile of a test patient is mapped; a missing magnification has none."""
    results, config = mixed
    train_all(results, config, [("disentangled", "teacher"), ("disentangled", "student")], only=None)
    config = {**config, "methods": {**config["methods"], "run": ["disentangled"]}, "seeds": [0]}
    predict.run(task="os", config=config, results=results, log=lambda _: None)
    mapped = {}
    for fold in range(3):
        tiles = pq.read_table(train.run_folder(results, "os", "disentangled", "student", fold, 0) / "subspaces.parquet")
        mapped |= tiles.to_pandas().groupby("patient_id")["magnification"].agg(set).to_dict()
    assert len(mapped) == 45
    assert (mapped["P000"], mapped["P003"], mapped["P001"]) == ({"20x"}, {"10x"}, {"10x", "20x"})


def test_scaling_names_the_magnification_that_is_left_out(mixed):
    results, _ = mixed
    cohort, said = Cohort.read(results, "colour-texture"), []
    assert list(fit_features(cohort, ["P000", "P006"], seed=0, log=said.append)) == ["20x"]
    assert said == ["magnification 10x is left out of this fold: no training patient has a tile of it"]
    assert list(fit_features(cohort, ["P000", "P001"], seed=0, log=said.append)) == ["10x", "20x"]
    assert len(said) == 1


def test_a_patient_without_a_valid_tile_is_left_out_and_named(planted):
    results, config, _ = planted(45, epochs=1)
    stages = [("abmil", "train"), ("linear-slide", "train"), ("linear-rna", "train")]
    train_all(results, config, stages)
    for patient in ("P001", "P002"):
        rewrite(results, patient, valid=False)
    for method, stage in stages:
        said: list[str] = []
        risks, _, _ = predicted(results, config, method, stage, log=said.append)
        if method == "linear-rna":
            assert {"P001", "P002"} < risks.keys()
            assert said == []
        else:
            assert len(risks) == 43
            assert not {"P001", "P002"} & risks.keys()
            assert said == ["not predicted, as there is no valid tile of them: P001, P002"]


def test_models_of_another_config_are_not_predicted(whole):
    results, config = whole
    quiet = {"task": "os", "results": results, "log": lambda _: None}
    receipt = predict.run(config=config, **quiet)
    assert len(receipt["outputs"]) == 6
    other = copy.deepcopy(config)
    other["methods"]["abmil"]["dropout"] = 0.4
    with pytest.raises(
        HistillError, match=r"os/abmil/fold0-seed0/train: the model was trained under another"
    ) as raised:
        predict.run(config=other, **quiet)
    assert raised.value.mend == "train again: histill train --task os --method abmil --stage train"
    other["methods"]["run"] = ["linear-slide"]
    assert predict.run(config=other, **quiet)["outputs"].items() < receipt["outputs"].items()


def test_the_log_of_the_stage_names_run_and_patients(whole):
    results, config = whole
    predict.run(task="os", config=config, results=results, log=lambda _: None)
    rewrite(results, "P003", valid=False)
    marker = train.run_folder(results, "os", "abmil", "train", 1, 0) / "predictions.json"
    marker.unlink()
    said: list[str] = []
    predict.run(task="os", config=config, results=results, log=said.append)
    name = "os abmil train fold 1 seed 0"
    assert said == [f"{name}: not predicted, as there is no valid tile of them: P003", f"{name}: 44 patients"]
    table = pq.read_table(marker.parent / "predictions.parquet").to_pydict()
    assert "P003" not in table["patient_id"]
    assert read_json(marker)["outputs"].keys() == {"predictions.parquet"}


PUBLISHED = {
    "mirror": {
        "preset": "published",
        "model": {"dim": 24, "landmarks": 8, "tokens": 32, "latent": 8, "hidden": [16], "prototypes": 20},
        "pretrain": {"epochs": 1},
        "probe": {"shots": [2], "draws": 2},
    },
    "msrl": {
        "preset": "published",
        "model": {"dim": 16, "hidden": 16},
        "pretrain": {"epochs": 1, "projection": 8},
    },
}


@pytest.mark.parametrize("preset", ["default", "published"])
def test_what_pre_trained_models_say_beside_predictions_is_scored(planted, preset):
    """Few-shot probes, embeddings and neighbours of every fold, as evaluation and report read them."""
    results, config, _ = planted(45, epochs=1)
    if preset == "published":
        config["methods"] |= {name: complete({**MINIMAL, "methods": PUBLISHED})["methods"][name] for name in PUBLISHED}
    config["methods"]["run"], config["evaluation"]["bootstrap"] = ["mirror", "msrl"], 50
    train_all(results, config, [pair for pair in STAGES if pair[0] in PUBLISHED], only=None)
    outputs = predict.run(task="os", config=config, results=results, log=lambda _: None)["outputs"]
    report = evaluation.run(task="os", config=config, results=results)
    probes = report["few_shot"]["models"]
    assert set(probes) == {"mirror slide", "mirror rna", "mirror fused"}
    assert {len(shot["metrics"]["c_index"]["draws"]) for entry in probes.values() for shot in entry["shots"]} == {2}
    assert report["few_shot"]["warnings"] == []
    assert [entry["model"] for entry in report["alignment"]["models"]] == ["mirror fused"]
    assert report["alignment"]["models"][0]["n"] == 36
    (facts,) = neighbour_facts("os", config, results)
    assert (facts["model"], facts["n"]) == ("msrl student", 45)
    cohort = Cohort.read(results, "colour-texture")
    for fold in range(3):
        tested = {patient for patient in cohort.patients["patient_id"] if cohort.value(patient, "fold") == fold}
        lenders = set(cohort.codes([p for p in cohort.patients["patient_id"] if p not in tested]))
        for name, stage in (("few-shot", "slide"), ("embeddings", "fused"), ("neighbours", "student")):
            method = "msrl" if stage == "student" else "mirror"
            place = train.run_folder(results, "os", method, stage, fold, 0) / f"{name}.parquet"
            assert place.relative_to(results).as_posix() in outputs
            rows = pq.read_table(place).to_pylist()
            assert {row["patient_id"] for row in rows} <= tested
            if name == "neighbours":
                assert {row["patient_id"] for row in rows} == tested
                assert {case for row in rows for case in row["case"] if case >= 0} <= lenders
                assert all(0 <= row["abstention"] <= 1 for row in rows)
                np.testing.assert_allclose([sum(row["weight"]) for row in rows], 1, rtol=1e-5)

"""Training, distillation and prediction on planted factors; nothing may leak from test patients."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from sksurv.metrics import concordance_index_censored

from histill.errors import HistillError
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.provenance import file_digest, read_json
from histill.stages import MODELS, predictors, task_of

FOLD = (0, 0)


def train_all(task, results, config, methods=tuple(MODELS)):
    for method in methods:
        for stage in MODELS[method]:
            train.run(
                task=task_of(method, stage, task),
                method=method,
                stage=stage,
                config=config,
                results=results,
                only=FOLD,
                log=lambda _: None,
            )


@pytest.fixture(scope="module")
def trained(planted):
    results, config, risk = planted()
    train_all("os", results, config)
    few = copy.deepcopy(config)
    few["training"]["model"]["epochs"] = 12
    train_all("dx", results, few, methods=("disentangled", "abmil"))
    return results, config, risk


def predictions(results, config, task, method, stage):
    folder = train.run_folder(results, task, method, stage, *FOLD)
    from histill.cohort.tasks import Task
    from histill.data.expression_table import ExpressionTable
    from histill.data.fold import Cohort

    needs_genes = "rna" in MODELS[method][stage].reads
    table = ExpressionTable.read(results, config) if needs_genes else None
    cohort = Cohort.read(results, "colour-texture", table)
    definition = Task.from_config(task, config["tasks"][task])
    return predict.predict(Checkpoint.read(folder), cohort, definition, FOLD[0], device="cpu"), cohort, definition


@pytest.mark.parametrize(("method", "stage"), [(method, stage) for method in MODELS for stage in predictors(method)])
def test_every_model_finds_what_was_planted(trained, method, stage):
    results, config, _ = trained
    table, cohort, task = predictions(results, config, "os", method, stage)
    rows = [index for index, split in enumerate(table["split"]) if split == "test"]
    time, event = np.array([cohort.label(task, table["patient_id"][row]) for row in rows]).T
    c_index = concordance_index_censored(event == 1, time, np.array(table["risk"])[rows])[0]
    assert c_index > 0.65, f"{method} {stage}: {c_index:.2f}"


@pytest.mark.parametrize(
    ("method", "stage"), [("disentangled", "teacher"), ("disentangled", "student"), ("abmil", "train")]
)
def test_classes_are_found_and_probabilities_sum_to_one(trained, method, stage):
    results, config, _ = trained
    table, cohort, task = predictions(results, config, "dx", method, stage)
    probability = np.column_stack([table["p:a"], table["p:b"]])
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    rows = [index for index, split in enumerate(table["split"]) if split == "test"]
    right = [cohort.label(task, table["patient_id"][row]) == "ab"[probability[row].argmax()] for row in rows]
    assert np.mean(right) > 0.7


def test_who_is_predicted_follows_from_what_is_read(trained):
    results, config, _ = trained
    student, cohort, _ = predictions(results, config, "os", "disentangled", "student")
    teacher, _, _ = predictions(results, config, "os", "disentangled", "teacher")
    assert len(student["patient_id"]) == 90
    assert len(teacher["patient_id"]) == sum(cohort.patients["has_rna"]) == 72


def test_a_second_run_trains_nothing(trained):
    results, config, _ = trained
    said = []
    train.run(
        task="os", method="disentangled", stage="student", config=config, results=results, only=FOLD, log=said.append
    )
    assert said == ["os disentangled student fold 0 seed 0: up to date"]


@pytest.fixture(scope="module")
def brief(planted):
    """Every model, after an epoch or two: enough to see what it was trained on."""
    results, config, _ = planted(45, epochs=2)
    train_all("os", results, config)
    return results, config


def test_training_is_reproducible_and_blind_to_test_patients(brief, planted):
    """Nonsense in every test patient's slide and genes changes no byte of any checkpoint of that fold."""
    results, _ = brief
    assignment = read_json(results / "cohort" / "folds.json")["assignment"]
    corrupt = tuple(patient for patient, folds in assignment.items() if folds == [FOLD[0]])
    other, other_config, _ = planted(45, corrupt=corrupt, epochs=2)
    assert read_json(other / "cohort" / "folds.json")["assignment"] == assignment
    train_all("os", other, other_config)
    for method in MODELS:
        for stage in MODELS[method]:
            for name in ("model.safetensors", "transforms.safetensors"):
                task = task_of(method, stage, "os")
                first, second = (train.run_folder(r, task, method, stage, *FOLD) / name for r in (results, other))
                assert file_digest(first) == file_digest(second), f"{method} {stage} {name}"


def test_training_sees_training_patients(clone, brief):
    """The counterpart: nonsense in one training patient does change the checkpoint."""
    results, config = brief
    assignment = read_json(results / "cohort" / "folds.json")["assignment"]
    training = next(patient for patient, folds in assignment.items() if folds != [FOLD[0]])
    other, other_config = clone(results, config, corrupt=(training,))
    train_all("os", other, other_config, methods=("linear-slide",))
    first, second = (
        train.run_folder(r, "os", "linear-slide", "train", *FOLD) / "model.safetensors" for r in (results, other)
    )
    assert file_digest(first) != file_digest(second)


def test_the_teacher_is_frozen(trained):
    """Training the student leaves the teacher's files as they were."""
    results, _config, _ = trained
    teacher = train.run_folder(results, "os", "disentangled", "teacher", *FOLD)
    receipt = read_json(teacher / "receipt.json")
    assert {name: file_digest(teacher / name) for name in receipt["outputs"]} == receipt["outputs"]


def test_distillation_changes_the_student(trained):
    results, _, _ = trained
    first = train.run_folder(results, "os", "disentangled", "student", *FOLD)
    second = train.run_folder(results, "os", "wsi-only", "train", *FOLD)
    assert file_digest(first / "model.safetensors") != file_digest(second / "model.safetensors")
    assert "train_distil_feature" in (first / "curve.csv").read_text()
    assert "train_distil_feature" not in (second / "curve.csv").read_text()


STUDENTS = ("disentangled", "mirror", "msrl")


def test_students_run_where_the_transcriptome_package_cannot_be_imported(trained):
    results, config, _ = trained
    folders = [str(train.run_folder(results, "os", method, "student", *FOLD)) for method in STUDENTS]
    code = f"""
import json, sys
sys.modules["histill.transcriptome"] = None
from histill.cohort.tasks import Task
from histill.data.fold import Cohort
from histill.methods.checkpoint import Checkpoint
from histill.methods.predict import predict
cohort, task = Cohort.read({str(results)!r}, "colour-texture"), Task("os", "survival", ("time", "event"), 4)
tables = [predict(Checkpoint.read(folder), cohort, task, 0, device="cpu") for folder in {folders}]
print(json.dumps([table["risk"] for table in tables]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for method, risks in zip(STUDENTS, json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected, _, _ = predictions(results, config, "os", method, "student")
        np.testing.assert_allclose(risks, expected["risk"], atol=1e-6, err_msg=method)


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    import shutil

    results, _, _ = trained
    folder = shutil.copytree(train.run_folder(results, "os", "abmil", "train", *FOLD), tmp_path / "c")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(HistillError, match="cannot be read"):
        Checkpoint.read(folder)


def test_prediction_stage_writes_every_table_and_skips_what_is_done(trained):
    results, config, _ = trained
    one = {**config, "methods": {**config["methods"], "run": ["linear-slide"]}}
    for fold in (1, 2):
        train.run(
            task="os", method="linear-slide", stage="train", config=one, results=results, only=(fold, 0), log=print
        )
    said: list[str] = []
    receipt = predict.run(task="os", config=one, results=results, log=said.append)
    assert len(receipt["outputs"]) == len(said) == 3
    for name in receipt["outputs"]:
        table = pq.read_table(results / name)
        curve = [name for name in table.column_names if name.startswith("s:")]
        assert [name for name in table.column_names if name not in curve] == [
            *("patient_id", "split", "modalities", "risk")
        ]
        assert len(curve) == config["tasks"]["os"].get("bins", 4) - 1
    again: list[str] = []
    assert predict.run(task="os", config=one, results=results, log=again.append) == receipt
    assert again == []

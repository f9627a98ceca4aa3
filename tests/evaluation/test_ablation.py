"""The table of the ablation on fake predictions of known worth."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import ConfigError, HistillError
from histill.evaluation.ablation import run
from histill.evaluation.stage import run as evaluate
from histill.methods import ablation
from histill.methods.train import run_folder
from histill.report import ablation_figure
from tests.evaluation.fake import write_cohort

TASK = "survival"
SEEDS = (0, 1)
WORSE = {"no-coordination": 1.0, "no-consistency": 30.0}  # noise on the risks of teacher and student


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """(config, results): every variant's own models predict as the full model does, some with noise on the risk."""
    results = tmp_path_factory.mktemp("ablation")
    config = write_cohort(results, patients=90, seeds=SEEDS)
    for variant in ablation.variants(config):
        for node in ablation.nodes(config, variant.name, task=TASK):
            for fold in range(3):
                for seed in SEEDS:
                    write(results, node, fold, seed, WORSE.get(variant.name, 0.0))
    return config, results


def write(results, node, fold, seed, noise):
    if node.folder == node.method:  # the full model's, and wsi-only
        return
    source = run_folder(results, TASK, node.method, node.stage, fold, seed) / "predictions.parquet"
    columns = pq.read_table(source).to_pydict()
    drawn = np.random.default_rng([fold, seed]).standard_normal(len(columns["risk"]))
    columns["risk"] = (np.array(columns["risk"]) + noise * drawn).tolist()
    target = run_folder(results, TASK, node.folder, node.stage, fold, seed) / "predictions.parquet"
    target.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), target)


@pytest.fixture(scope="module")
def report(cohort):
    config, results = cohort
    return run(task=TASK, config=config, results=results)


def row(report, name):
    return next(row for row in report["rows"] if row["name"] == name)


def test_rows_are_the_full_model_and_every_variant(report):
    assert [row["name"] for row in report["rows"]] == ["full", *ablation.BUILT_IN]


def test_the_full_model_scores_as_in_the_main_evaluation(cohort, report):
    config, results = cohort
    main = evaluate(
        task=TASK, config={**config, "methods": {**config["methods"], "run": ["disentangled"]}}, results=results
    )
    for role in ablation.ROLES:
        own = main["own"][f"disentangled {role}"]
        found = row(report, "full")[role]["metrics"]["c_index"]
        assert {name: found[name] for name in ("value", "low", "high", "folds", "seeds")} == own["models"][
            f"disentangled {role}"
        ]["c_index"]
        assert report["patients"][role]["n"] == own["n"]
        assert found["difference"] is None


def test_what_is_shared_has_no_difference_and_is_marked(report):
    teacher = row(report, "no-aggregation")["teacher"]
    assert teacher["shared"]
    assert teacher["folder"] == "disentangled"
    assert [teacher["metrics"]["c_index"]["difference"][name] for name in ("value", "low", "high")] == [0, 0, 0]
    assert not row(report, "no-aggregation")["student"]["shared"]
    assert row(report, "no-distillation")["student"]["folder"] == "wsi-only"


def test_a_model_that_lost_all_differs_and_the_difference_is_of_the_same_patients(report):
    full, lost = (row(report, name)["student"]["metrics"]["c_index"] for name in ("full", "no-consistency"))
    difference = lost["difference"]
    assert difference["value"] == pytest.approx(full["value"] - lost["value"])
    assert difference["low"] > 0.02
    assert [fold["value"] for fold in difference["folds"]] == pytest.approx(
        [a["value"] - b["value"] for a, b in zip(full["folds"], lost["folds"], strict=True)]
    )
    # Paired: narrower than of two independent samples.
    mild = row(report, "no-coordination")["student"]["metrics"]["c_index"]
    apart = np.hypot(full["high"] - full["low"], mild["high"] - mild["low"])
    assert mild["difference"]["high"] - mild["difference"]["low"] < 0.9 * apart


def test_the_table_holds_a_row_a_variant(cohort, report):
    _, results = cohort
    with open(results / "evaluation" / f"ablation-{TASK}.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert [entry["variant"] for entry in rows] == [entry["name"] for entry in report["rows"]]
    assert rows[0]["student:c_index:difference"] == ""
    for entry, found in zip(rows[1:], report["rows"][1:], strict=True):
        for role in ablation.ROLES:
            metric = found[role]["metrics"]["c_index"]
            assert float(entry[f"{role}:c_index"]) == pytest.approx(metric["value"], rel=1e-5)
            for name, key in (("difference", "value"), ("difference_low", "low"), ("difference_high", "high")):
                assert float(entry[f"{role}:c_index:{name}"]) == pytest.approx(metric["difference"][key], abs=1e-5)


def test_the_picture_is_drawn(tmp_path, report):
    import cv2

    ablation_figure.write(tmp_path / "a.png", report)
    picture = cv2.imread(str(tmp_path / "a.png"))
    vermilion = np.abs(picture.astype(int) - (0, 94, 213)).max(2) < 10
    blue = np.abs(picture.astype(int) - (178, 114, 0)).max(2) < 10
    assert vermilion.sum() > 500
    assert blue.sum() > 500
    ablation_figure.write(tmp_path / "b.png", report)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_classification_has_a_column_a_metric(cohort, tmp_path):
    config, results = cohort
    one = {**config, "ablation": {**config["ablation"], "variants": ["no-distillation"]}}
    report = run(task="subtype", config=one, results=results)
    metrics = ["auc", "balanced_accuracy", "f1", "average_precision", "brier", "calibration_slope"]
    assert list(row(report, "full")["student"]["metrics"]) == metrics
    ablation_figure.write(tmp_path / "a.png", report)


def test_missing_predictions_are_named(cohort, tmp_path):
    config, results = cohort
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    gone = run_folder(copied, TASK, "disentangled.no-coordination", "teacher", 1, 0) / "predictions.parquet"
    gone.unlink()
    with pytest.raises(HistillError, match=str(gone)):
        run(task=TASK, config=config, results=copied)


def test_without_the_method_there_is_no_ablation(cohort):
    config, results = cohort
    without = {**config, "methods": {**config["methods"], "run": ["wsi-only"]}}
    with pytest.raises(ConfigError, match="'disentangled' is not there"):
        run(task=TASK, config=without, results=results)

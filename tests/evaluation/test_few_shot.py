"""Few-shot probes beside the probe of all training patients. The linear models stand for slide, RNA and both."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.evaluation.predictions import Model
from histill.evaluation.stage import run
from histill.methods.extras import FEW_SHOT
from tests.evaluation.fake import edit, write_cohort
from tests.evaluation.fake_pretraining import write_few_shot

SLIDE, RNA, BOTH = (Model(f"linear-{name}", "train") for name in ("slide", "rna", "both"))
METHODS = ["abmil", "linear-slide", "linear-rna", "linear-both"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    results = tmp_path_factory.mktemp("few-shot")
    config = write_cohort(results, seeds=(0, 1), methods={"run": METHODS})
    for task in config["tasks"]:
        for model in (SLIDE, RNA, BOTH):
            write_few_shot(results, config, task, model)
    return results, config, {task: run(task=task, config=config, results=results) for task in config["tasks"]}


@pytest.fixture
def copied(probed, tmp_path):
    source, config, _ = probed
    shutil.copytree(source, tmp_path / "results")
    return tmp_path / "results", config


def _file(results, model=BOTH, fold=1, seed=0, task="survival"):
    return model.path(results, task, fold, seed).with_name(FEW_SHOT)


def test_all_probes_are_scored_on_the_same_patients(probed):
    _, _, reports = probed
    found = reports["survival"]["few_shot"]
    assert list(found["models"]) == ["linear-slide", "linear-rna", "linear-both"]
    assert found["n"] == 49  # with RNA and an outcome, also for the slide's probes
    assert sum(fold["n"] for fold in found["folds"]) == 49
    assert found["shots"] == [1, 5, 10]
    own = reports["survival"]["own"]["linear-both"]["models"]["linear-both"]
    assert found["models"]["linear-both"]["full"] == own


def test_a_value_is_the_mean_of_scikit_survival_over_folds_seeds_and_draws(probed):
    from sksurv.metrics import concordance_index_censored

    results, _, reports = probed
    cohort = pq.read_table(results / "cohort/patients.parquet").to_pylist()
    outcome = {row["patient_id"]: (bool(row["event:survival"]), row["time:survival"]) for row in cohort}
    by_draw = []
    for seed in range(2):
        for draw in range(3):
            folds = []
            for fold in range(3):
                rows = pq.read_table(_file(results, fold=fold, seed=seed)).to_pylist()
                rows = [row for row in rows if (row["shots"], row["draw"]) == (5, draw)]
                event, time = zip(*(outcome[row["patient_id"]] for row in rows), strict=True)
                risk = [row["risk"] for row in rows]
                folds.append(concordance_index_censored(np.array(event), np.array(time), risk)[0])
            by_draw.append(np.mean(folds))
    entry = reports["survival"]["few_shot"]["models"]["linear-both"]["shots"][1]
    assert (entry["shots"], entry["draws"]) == (5, 3)
    found = entry["metrics"]["c_index"]
    assert [own["value"] for own in found["draws"]] == pytest.approx(by_draw, abs=1e-12)
    assert [(own["seed"], own["draw"]) for own in found["draws"]] == [(s, d) for s in range(2) for d in range(3)]
    assert found["value"] == pytest.approx(np.mean(by_draw), abs=1e-12)
    assert found["spread"] == pytest.approx(np.std(by_draw, ddof=1), abs=1e-12)
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize(("task", "metric"), [("survival", "c_index"), ("subtype", "auc")])
def test_more_shots_come_nearer_to_all_of_them(probed, task, metric):
    _, _, reports = probed
    entry = reports[task]["few_shot"]["models"]["linear-both"]
    values = [own["metrics"][metric]["value"] for own in entry["shots"]] + [entry["full"][metric]["value"]]
    assert values == sorted(values)
    assert set(entry["shots"][0]["metrics"]) == {key["key"] for key in reports[task]["metrics"]}


def test_the_table_holds_them_as_a_set_of_their_own(probed):
    results, _, reports = probed
    with open(results / "evaluation/survival.tsv", newline="") as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["set"] == "few-shot"]
    means = {row["model"]: row for row in rows if row["fold"] == "mean" and row["metric"] == "c_index"}
    assert list(means)[:4] == [f"linear-slide, {name}" for name in ("1 shot", "5 shots", "10 shots", "all")]
    value = reports["survival"]["few_shot"]["models"]["linear-rna"]["shots"][2]["metrics"]["c_index"]["value"]
    assert float(means["linear-rna, 10 shots"]["value"]) == pytest.approx(value, abs=1e-5)
    assert (means["linear-rna, 10 shots"]["inputs"], means["linear-rna, 10 shots"]["n"]) == ("rna", "49")
    assert len(rows) == 3 * 4 * 4 * 4  # models, numbers of shots, folds and their mean, metrics


def test_without_the_files_there_is_nothing(tmp_path):
    config = write_cohort(tmp_path, methods={"run": ["abmil", "linear-slide"]})
    report = run(task="survival", config=config, results=tmp_path)
    assert {"few_shot", "alignment"}.isdisjoint(report)
    assert "few-shot" not in (tmp_path / "evaluation/survival.tsv").read_text()


def test_a_file_that_other_folds_have_is_missed(copied):
    results, config = copied
    _file(results).unlink()
    with pytest.raises(HistillError, match=r"linear-both/fold1-seed0/train/few-shot\.parquet does not exist"):
        run(task="survival", config=config, results=results)


def test_a_patient_of_another_fold_is_a_leak(copied):
    results, config = copied
    edit(_file(results), "patient_id", 0, "P003")  # of fold 0, so a training patient of fold 1
    with pytest.raises(HistillError, match=r"few-shot\.parquet: patient 'P003' belongs to fold 0, not 1"):
        run(task="survival", config=config, results=results)


def test_a_patient_twice_and_a_risk_that_is_not_finite_are_named(copied):
    results, config = copied
    first = pq.read_table(_file(results))["patient_id"][0].as_py()
    edit(_file(results), "patient_id", 1, first)
    with pytest.raises(HistillError, match=rf"'{first}' is predicted twice, with 1 shot, draw 0"):
        run(task="survival", config=config, results=results)
    edit(_file(results, fold=0), "risk", 0, float("inf"))
    with pytest.raises(HistillError, match=r"fold0-seed0.*not finite"):
        run(task="survival", config=config, results=results)


def test_shots_that_a_fold_cannot_have_are_left_out_with_a_warning(copied):
    results, config = copied
    table = pq.read_table(_file(results))
    pq.write_table(table.filter(pa.array([shots < 10 for shots in table["shots"].to_pylist()])), _file(results))
    found = run(task="survival", config=config, results=results)["few_shot"]
    assert found["shots"] == [1, 5]
    assert [own["shots"] for own in found["models"]["linear-slide"]["shots"]] == [1, 5]
    assert found["warnings"] == [
        "few-shot probes of 10 shots are left out: not every fold and seed has the same draws of them"
    ]


def test_a_patient_that_one_draw_lacks_is_left_out_of_all_rows(copied):
    results, config = copied
    table = pq.read_table(_file(results))
    pq.write_table(table.slice(1), _file(results))
    found = run(task="survival", config=config, results=results)["few_shot"]
    assert found["n"] == 48


def test_one_draw_has_no_spread(tmp_path):
    config = write_cohort(tmp_path, methods={"run": ["linear-slide"]})
    write_few_shot(tmp_path, config, "survival", SLIDE, shots=(5,), draws=1)
    found = run(task="survival", config=config, results=tmp_path)["few_shot"]["models"]["linear-slide"]
    assert found["shots"][0]["metrics"]["c_index"]["spread"] is None


def test_a_fold_without_test_patients_needs_no_file(copied):
    results, config = copied
    for model in (SLIDE, RNA, BOTH):
        for seed in range(2):
            path = model.path(results, "survival", 1, seed)
            table = pq.read_table(path)
            pq.write_table(table.filter(pa.array([split != "test" for split in table["split"].to_pylist()])), path)
            _file(results, model, seed=seed).unlink()
    found = run(task="survival", config=config, results=results)["few_shot"]
    assert [fold["fold"] for fold in found["folds"]] == [0, 2]
    assert found["shots"] == [1, 5, 10]

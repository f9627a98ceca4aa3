"""The evaluation stage on a fake results folder with known truth."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.evaluation.predictions import Model, Outcomes, Predictions
from histill.evaluation.scoring import score
from histill.evaluation.stage import evaluate, run
from tests.evaluation.fake import edit, write_cohort


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    config = write_cohort(results, seeds=(0, 1))
    reports = {task: run(task=task, config=config, results=results) for task in config["tasks"]}
    return results, config, reports


@pytest.fixture
def copied(evaluated, tmp_path):
    """A copy of the folder for tests that break it."""
    source, config, _ = evaluated
    shutil.copytree(source, tmp_path / "results")
    return tmp_path / "results", config


def _survival_file(results, method="abmil", stage="train", fold=1, seed=0):
    return Model(method, stage).path(results, "survival", fold, seed)


def test_patients_of_each_set(evaluated):
    _, _, reports = evaluated
    report = reports["survival"]
    assert report["paired"]["n"] == 49  # 50 with RNA, less the one without outcome
    assert report["own"]["disentangled student"]["n"] == 59
    assert report["own"]["linear-rna"]["n"] == 49
    assert sum(fold["n"] for fold in report["paired"]["folds"]) == 49
    assert {model["name"]: model["inputs"] for model in report["models"]}["disentangled teacher"] == "slide+rna"
    assert (report["folds"], report["seeds"]) == ([0, 1, 2], [0, 1])


def test_points_equal_scikit_survival_by_fold_and_seed(evaluated):
    from sksurv.metrics import concordance_index_censored

    results, _, reports = evaluated
    cohort = pq.read_table(results / "cohort/patients.parquet").to_pylist()
    outcome = {row["patient_id"]: (bool(row["event:survival"]), row["time:survival"]) for row in cohort}
    by_fold = []
    for fold in range(3):
        values = []
        for seed in range(2):
            rows = pq.read_table(_survival_file(results, fold=fold, seed=seed)).to_pylist()
            rows = [row for row in rows if row["split"] == "test"]
            event, time = zip(*(outcome[row["patient_id"]] for row in rows), strict=True)
            values.append(concordance_index_censored(np.array(event), np.array(time), [r["risk"] for r in rows])[0])
        by_fold.append(np.mean(values))
    found = reports["survival"]["own"]["abmil"]["models"]["abmil"]["c_index"]
    assert [fold["value"] for fold in found["folds"]] == pytest.approx(by_fold, abs=1e-12)
    assert found["value"] == pytest.approx(np.mean(by_fold), abs=1e-12)
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize(("task", "metric"), [("survival", "c_index"), ("subtype", "auc")])
def test_the_better_model_has_a_positive_difference(evaluated, task, metric):
    _, _, reports = evaluated
    comparisons = {(c["a"], c["b"], c["metric"]): c for c in reports[task]["comparisons"]}
    gain = comparisons["disentangled student", "linear-slide", metric]
    assert gain["value"] > 0
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    models = reports[task]["paired"]["models"]
    difference = models["disentangled student"][metric]["value"] - models["linear-slide"][metric]["value"]
    assert gain["value"] == pytest.approx(difference, abs=1e-12)
    assert gain["low"] > models["disentangled student"][metric]["low"] - models["linear-slide"][metric]["high"]


def test_identical_models_differ_by_exactly_zero(copied):
    results, config = copied
    for fold in range(3):
        for seed in range(2):
            twin = _survival_file(results, "wsi-only", "train", fold, seed)
            shutil.copyfile(_survival_file(results, "disentangled", "student", fold, seed), twin)
    report = run(task="survival", config=config, results=results)
    value = report["comparisons"][0]
    assert (value["a"], value["b"]) == ("disentangled student", "wsi-only")
    assert (value["value"], value["low"], value["high"]) == (0.0, 0.0, 0.0)


def test_json_and_table_tell_the_same_and_repeat_exactly(evaluated, tmp_path):
    results, config, reports = evaluated
    written = json.loads((results / "evaluation/survival.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(reports["survival"]))
    with open(results / "evaluation/survival.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    mean = next(r for r in rows if (r["set"], r["model"], r["fold"]) == ("paired", "abmil", "mean"))
    assert float(mean["value"]) == pytest.approx(written["paired"]["models"]["abmil"]["c_index"]["value"], abs=1e-5)
    assert (int(mean["n"]), int(mean["events"])) == (49, written["paired"]["events"])
    before = (results / "evaluation/survival.json").read_bytes()
    run(task="survival", config=config, results=results)
    assert (results / "evaluation/survival.json").read_bytes() == before


def test_kaplan_meier_groups_cut_at_training_risk(evaluated):
    _, _, reports = evaluated
    curves = reports["survival"]["kaplan_meier"]["models"]
    groups = curves["disentangled teacher"]["groups"]
    assert groups["low"]["n"] + groups["high"]["n"] == 49
    assert curves["disentangled teacher"]["log_rank_p"] < 0.05
    assert groups["high"]["survival"][-1] < groups["low"]["survival"][-1]


def test_more_than_two_classes(tmp_path):
    config = write_cohort(tmp_path, classes=("a", "b", "c"), methods={"run": ["abmil", "linear-slide"]})
    report = run(task="subtype", config=config, results=tmp_path)
    assert report["paired"]["n"] == 59
    assert sum(report["paired"]["classes"].values()) == 59
    assert 0.5 < report["paired"]["models"]["abmil"]["auc"]["value"] < 1
    assert len(report["roc"]["true_positive_rate"]["abmil"]) == len(report["roc"]["false_positive_rate"])


def test_an_absent_file_is_named(copied):
    results, config = copied
    path = _survival_file(results)
    path.unlink()
    with pytest.raises(HistillError, match=r"abmil/fold1-seed0/train/predictions\.parquet does not exist"):
        run(task="survival", config=config, results=results)


def test_a_risk_that_is_not_finite_names_file_and_patient(copied):
    results, config = copied
    edit(_survival_file(results), "risk", 4, float("nan"))
    with pytest.raises(HistillError, match=r"fold1-seed0.*patient 'P004'.*not finite"):
        run(task="survival", config=config, results=results)


def test_a_patient_tested_in_another_fold_is_a_leak(copied):
    results, config = copied
    edit(_survival_file(results), "split", 3, "test")  # P003 belongs to fold 0
    with pytest.raises(HistillError, match=r"patient 'P003' is in its test split but belongs to fold 0"):
        run(task="survival", config=config, results=results)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_patient_seen_in_training_by_the_model_that_tests_it_is_a_leak(copied, split):
    """A file of older folds: without a word the patient would be tested by no model at all."""
    results, config = copied
    edit(_survival_file(results), "split", 4, split)  # P004 is tested in fold 1
    with pytest.raises(HistillError, match=rf"patient 'P004' is in its {split} split but is to be tested in fold 1"):
        run(task="survival", config=config, results=results)


def test_probabilities_must_add_up(copied):
    results, config = copied
    edit(Model("abmil", "train").path(results, "subtype", 1, 0), "p:basal", 4, 0.999)
    with pytest.raises(HistillError, match=r"patient 'P004'.*add up to 1"):
        run(task="subtype", config=config, results=results)


def test_a_fold_without_events_and_constant_risks_is_left_out_with_a_warning(copied):
    results, config = copied
    cohort = results / "cohort/patients.parquet"
    for row in range(0, 60, 3):
        edit(cohort, "event:survival", row, 0)
    for seed in range(2):
        for row in range(60):
            edit(_survival_file(results, fold=2, seed=seed), "risk", row, 0.5)
    report = run(task="survival", config=config, results=results)
    found = report["paired"]["models"]["abmil"]["c_index"]
    first, second, third = (fold["value"] for fold in found["folds"])
    assert first is None
    assert third == 0.5
    assert found["value"] == pytest.approx((second + third) / 2)
    assert any(text.startswith("fold 0:") for text in report["warnings"])
    assert any("same risk" in text for text in report["warnings"])


def test_a_fold_of_one_class_keeps_its_brier_score(copied):
    results, config = copied
    cohort = results / "cohort/patients.parquet"
    for row in range(0, 60, 3):
        edit(cohort, "label:subtype", row, "basal")
    report = run(task="subtype", config=config, results=results)
    found = report["paired"]["models"]["abmil"]
    assert found["auc"]["folds"][0]["value"] is None
    assert found["brier"]["folds"][0]["value"] is not None
    assert 0 < found["auc"]["low"] < found["auc"]["high"]


def test_no_event_at_all_gives_none_not_an_error(copied):
    results, config = copied
    for row in range(60):
        if row != 1:
            edit(results / "cohort/patients.parquet", "event:survival", row, 0)
    report = run(task="survival", config=config, results=results)
    found = report["paired"]["models"]["abmil"]["c_index"]
    assert (found["value"], found["low"], found["high"]) == (None, None, None)
    assert report["kaplan_meier"]["models"]["abmil"]["log_rank_p"] is None


def test_a_row_without_the_modalities_of_its_model_is_not_scored(copied):
    """A teacher that fell back to the slide alone is no teacher."""
    results, config = copied
    for seed in range(2):
        edit(_survival_file(results, "disentangled", "teacher", 0, seed), "modalities", 0, "slide")
    report = run(task="survival", config=config, results=results)
    assert report["own"]["disentangled teacher"]["n"] == report["paired"]["n"] == 48
    assert report["own"]["disentangled student"]["n"] == 59


def test_resamples_do_not_depend_on_which_models_are_scored():
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(40)]
    outcomes = Outcomes(
        "survival",
        {p: (float(rng.exponential()), int(rng.random() < 0.7)) for p in patients},
        {p: [0] for p in patients},
    )

    def predictions(method):
        return Predictions(Model(method, "train"), {(0, 0): {p: rng.standard_normal(1) for p in patients}})

    a, b = predictions("abmil"), predictions("wsi-only")
    alone = score([a], set(patients), outcomes, [0], 100, 1).estimates["abmil"]["c_index"]
    together = score([b, a], set(patients), outcomes, [0], 100, 1).estimates["abmil"]["c_index"]
    assert (alone.draws == together.draws).all()


def test_all_parts_of_the_report_are_there_and_tell_of_every_model(evaluated):
    _, _, reports = evaluated
    survival, classes = reports["survival"], reports["subtype"]
    names = [model["name"] for model in survival["models"]]
    for report in (survival, classes):
        assert list(report["paired"]["models"]) == list(report["calibration"]["models"]) == names
        assert all(list(entry["models"]) == names for entry in report["decision_curves"]["of"])
        assert {entry["p"] is not None for entry in report["comparisons"]} == {True}
        assert all(entry["p_holm"] >= entry["p"] for entry in report["comparisons"])
    times = survival["horizons"]["times"]
    assert len(times) == 3
    assert [entry["time"] for entry in survival["horizons"]["models"]["abmil"]] == times
    labels = [f"{time:g} days" for time in times]
    assert [entry["of"] for entry in survival["calibration"]["models"]["abmil"]] == labels
    assert [entry["of"] for entry in survival["decision_curves"]["of"]] == labels
    assert [entry["of"] for entry in classes["decision_curves"]["of"]] == ["class classical"]
    assert "horizons" not in classes
    assert set(survival["paired"]["models"]["abmil"]) == {"c_index", "uno_c", "td_auc", "ibs"}


def test_horizons_of_the_config_are_used(copied):
    results, config = copied
    config["evaluation"]["horizons"] = [300.0]
    try:
        report = run(task="survival", config=config, results=results)
    finally:
        config["evaluation"]["horizons"] = None
    assert report["horizons"]["times"] == [300.0]
    found = report["paired"]["models"]["abmil"]
    assert found["td_auc"]["value"] is not None
    assert found["ibs"]["value"] is None  # a single time has no range to integrate over
    assert any("Integrated Brier score is not defined" in text for text in report["warnings"])


def test_models_can_be_named_and_nothing_is_written(copied):
    results, config = copied
    before = {path: path.stat().st_mtime_ns for path in (results / "evaluation").iterdir()}
    named = [Model("abmil", "train"), Model("wsi-only", "train")]
    report = evaluate(task="survival", config=config, results=results, models=named)
    assert list(report["paired"]["models"]) == ["abmil", "wsi-only"]
    assert report["paired"]["n"] == 59
    assert {path: path.stat().st_mtime_ns for path in (results / "evaluation").iterdir()} == before


def test_predictions_of_an_older_version_have_no_curves_and_are_scored_by_rank_alone(copied):
    results, config = copied
    for fold in range(3):
        for seed in range(2):
            path = _survival_file(results, fold=fold, seed=seed)
            table = pq.read_table(path)
            pq.write_table(table.select([name for name in table.column_names if not name.startswith("s:")]), path)
    report = run(task="survival", config=config, results=results)
    assert report["paired"]["models"]["abmil"]["ibs"]["value"] is None
    assert report["paired"]["models"]["abmil"]["uno_c"]["value"] is not None
    assert report["paired"]["models"]["wsi-only"]["ibs"]["value"] is not None
    assert report["calibration"]["models"]["abmil"] == []


def test_a_second_repeat_tests_every_patient_again_and_nobody_is_counted_twice(copied):
    """The models of folds 3 to 5 are those of 0 to 2, tested on another partition."""
    results, config = copied
    folds_path = results / "cohort/folds.json"
    folds = json.loads(folds_path.read_text())
    again = {patient: 3 + int(patient[1:]) // 2 % 3 for patient in folds["assignment"]}
    both = {patient: [*own, again[patient]] for patient, own in folds["assignment"].items()}
    folds_path.write_text(json.dumps({**folds, "n": 6, "repeats": 2, "assignment": both}))
    for path in results.glob("models/survival/**/predictions.parquet"):
        number, seed = path.parent.parent.name.removeprefix("fold").split("-")
        table = pq.read_table(path).to_pydict()
        table["split"] = [
            "test" if again[patient] == 3 + int(number) else "train" if split == "test" else split
            for patient, split in zip(table["patient_id"], table["split"], strict=True)
        ]
        target = path.parents[2] / f"fold{3 + int(number)}-{seed}" / path.parent.name / path.name
        target.parent.mkdir(parents=True)
        pq.write_table(pa.table(table), target)
    once = json.loads((results / "evaluation/survival.json").read_text())
    report = run(task="survival", config=config, results=results)
    assert (report["folds"], report["repeats"], report["paired"]["n"]) == ([0, 1, 2, 3, 4, 5], 2, 49)
    assert "every repeat" in report["note"]
    found, before = (entry["paired"]["models"]["abmil"]["c_index"] for entry in (report, once))
    assert found["folds"][:3] == before["folds"]
    assert found["value"] == pytest.approx(np.mean([fold["value"] for fold in found["folds"]]))
    assert (found["high"] - found["low"]) == pytest.approx(before["high"] - before["low"], rel=0.5)
    groups = report["kaplan_meier"]["models"]["abmil"]["groups"]
    assert sum(group["n"] for group in groups.values()) == 49
    assert all(sum(entry["curve"]["n"]) >= 49 for entry in report["calibration"]["models"]["abmil"])

"""The parts of a task: each is shown with its numbers where the evaluation has it, and left out where it has not."""

from __future__ import annotations

import base64
import copy
import json
import shutil

import pytest

from histill.evaluation.predictions import Model
from histill.provenance import read_json
from histill.report import figure_files
from histill.report.audit import verdict
from histill.report.calibration import calibration_facts, reading
from histill.report.comparisons import comparison_facts
from histill.report.decisions import decision_facts
from histill.report.external import external_facts
from histill.report.figures import main_models, model_style
from histill.report.horizons import horizon_facts
from histill.report.stage import run
from histill.report.subgroups import subgroup_facts
from histill.stages import MODELS, predictors
from tests.report import fake_parts
from tests.report.dom import Page, said

PARTS = ("horizons", "calibration", "decision_curves", "subgroups", "external")


@pytest.fixture(scope="module")
def page(whole_run):
    config, results = whole_run
    return Page.read(run(config=config, results=results))


@pytest.fixture
def report(whole_run):
    _, results = whole_run
    return read_json(results / "evaluation" / "survival.json")


def test_the_parts_stand_in_the_order_of_the_contents(page):
    parts = [heading.get("id") for heading in page.by_id("task-survival").iter("h3") if heading.get("id")]
    wanted = (
        "table",
        "comparisons",
        "few_shot",
        "curves",
        "horizons",
        "calibration",
        "decisions",
        "subgroups",
        "external",
    )
    assert parts == [f"{part}-survival" for part in wanted]
    assert "horizons-subtype" not in page.ids


def test_models_are_grouped_by_what_they_need_of_a_patient(page):
    rows = [row[0] for row in page.rows("t-metrics-survival")[1:]]
    assert rows[0] == "Needs slide alone"
    assert rows.index("disentangled student") < rows.index("Needs slide and RNA") < rows.index("disentangled teacher")
    assert rows.index("linear-rna") > rows.index("Needs RNA alone")
    assert page.rows("t-metrics-survival")[0][-1] == "Integrated Brier score (less is better)"
    assert page.rows("t-metrics-subtype")[0][-1] == "Calibration slope (1 is best)"


def test_what_distillation_is_worth_comes_first_with_its_p_values(page):
    header, first, *_ = page.rows("t-differences-survival")
    assert header == ["Comparison", "Question", "Difference", "p", "p, Holm", "Reading"]
    assert first[0] == "disentangled student − wsi-only"
    assert first[1] == "value of distillation"
    assert first[3:5] == ["0.012", "0.048"]


def test_a_difference_that_correction_takes_away_is_said_to_be_so(report):
    entry = next(entry for entry in report["comparisons"] if entry["metric"] == "c_index")
    entry.update(low=0.1, high=0.2, value=0.15, p_holm=0.06)
    report["comparisons"] = [entry]
    assert comparison_facts(report)["primary"][0]["verdict"].endswith(" is ahead, but not after correction")
    entry["p_holm"] = 0.049
    assert comparison_facts(report)["primary"][0]["verdict"] == f"{entry['a']} is better"
    entry["p_holm"] = None
    assert comparison_facts(report)["primary"][0]["verdict"] == f"{entry['a']} is better"
    report["comparisons"] = []
    assert comparison_facts(report) is None


def test_horizons(page, report):
    rows = page.rows("t-horizons-survival")
    assert rows[0] == ["Model", "Needs", "365", "730", "1095"]
    assert rows[1] == ["AUC"]
    teacher = report["models"][0]["name"]
    assert next(row for row in rows if row[0] == teacher)[2:] == ["0.640 0.580 to 0.700", "0.640 0.580 to 0.700", "–"]
    (alt,) = page.alts("by horizon (days)")
    assert "disentangled student 0.640 (0.580 to 0.700) at 365" in alt
    report["horizons"]["times"] = []
    assert horizon_facts(report) is None


def test_calibration(page, report):
    rows = page.rows("t-calibration-survival")
    assert rows[1][1:] == ["365 days", "0.83 0.71 to 0.95", "0.05 −0.01 to 0.11", "too extreme"]
    assert rows[2] == ["730 days", "–", "–", "cannot be told"]
    assert page.alts("Observed against predicted", "disentangled student, 365 days, slope 0.83 (0.71 to 0.95)")
    report["calibration"]["models"] = {"abmil": []}
    assert calibration_facts(report) is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.7, 0.9, "too extreme"),
        (1.1, 1.4, "too cautious"),
        (0.8, 1.2, "no fault shown"),
        (None, None, "cannot be told"),
    ],
)
def test_what_a_slope_says(low, high, words):
    assert reading({"value": 1.0, "low": low, "high": high}) == words


def test_decision_curves(page, report):
    rows = page.rows("t-decisions-survival-1")
    assert rows[0] == ["Model", "0.10", "0.20", "0.30", "0.50", "0.70"]
    assert rows[-1][:2] == ["everybody treated", "0.333"]
    assert page.alts("Net benefit", "365 days, at a threshold of 0.45: disentangled student 0.115")
    report["decision_curves"]["of"] = [{"of": "x", "thresholds": [], "all": [], "models": {}}]
    assert decision_facts(report) is None


def test_subgroups(page, report):
    rows = page.rows("t-subgroups-survival")
    assert rows[1] == ["sex (not known of 3 patients)"]
    assert rows[2][:4] == ["female", "31", "11 events", "0.660 0.600 to 0.720"]
    assert rows[3][0] == "male too small"
    assert rows[4][3:] == ["–"] * (len(rows[0]) - 3)
    assert rows[0][3].endswith(" student")
    (alt,) = page.alts("C-index of disentangled student by subgroup")
    assert alt.endswith("sex female 0.660 (0.600 to 0.720); sex male 0.580 (0.520 to 0.640).")
    report["subgroups"]["columns"] = []
    assert subgroup_facts(report) is None


def test_external_cohorts(page, report):
    assert "Elsewhere <2>: " in said(page.by_id("task-survival"))
    rows = page.rows("t-external-survival-1")
    assert rows[2:4] == page.rows("t-metrics-survival")[2:4]
    assert "On the external cohort Elsewhere <2>" in said(page.by_id("summary"))
    report["external"] = None
    assert external_facts(report) == []


def test_the_benchmark_is_shown_where_there_is_one(page):
    text = said(page.by_id("benchmark"))
    assert page.rows("t-benchmark-survival")[2:4] == page.rows("t-metrics-survival")[2:4]
    assert page.rows("t-benchmark-differences-survival")[1][1] == "value of distillation"
    assert "Left out, as no patient has a transcriptome: snn, mcat." in text
    assert "Epochs <b>." in text
    assert "benchmark-subtype" not in page.ids


def test_the_figures_of_the_page_are_files_too(whole_run, page):
    _, results = whole_run
    names = {path.relative_to(results / "figures").as_posix() for path in (results / "figures").rglob("*.svg")}
    both = ("metrics", "differences", "few-shot", "calibration", "decision-curves", "subgroups", "external-1")
    wanted = {f"{task}/{name}.svg" for task in ("survival", "subtype") for name in both}
    assert names == wanted | {"survival/survival.svg", "survival/horizons.svg", "subtype/roc.svg"}
    for name in names:
        content = base64.b64encode((results / "figures" / name).read_bytes()).decode()
        assert any(image.get("src").endswith(content) for image in page.images)


def test_figures_of_an_earlier_page_do_not_stay(whole_run, tmp_path):
    _, results = whole_run
    shutil.copytree(results, tmp_path / "r")
    (tmp_path / "r" / "figures" / "old.svg").write_text("x")
    figure_files.write([], tmp_path / "r")
    assert list((tmp_path / "r" / "figures").iterdir()) == []


def test_what_the_evaluation_has_not_is_left_out(whole_run, tmp_path):
    config, results = whole_run
    shutil.copytree(results, tmp_path / "r")
    for task in config["tasks"]:
        path = tmp_path / "r" / "evaluation" / f"{task}.json"
        report = {key: value for key, value in json.loads(path.read_text()).items() if key not in PARTS}
        path.write_text(json.dumps(report))
    page = Page.read(run(config=config, results=tmp_path / "r"))
    absent = {f"{part}-{task}" for part in (*PARTS, "decisions") for task in config["tasks"]}
    assert absent.isdisjoint(page.ids)
    assert "no external cohort was tested" in page.words


def test_a_leak_is_told_in_the_summary_and_row_by_row(whole_run, tmp_path):
    config, results = whole_run
    shutil.copytree(results, tmp_path / "r")
    fake_parts.write_audit(tmp_path / "r", "leak")
    page = Page.read(run(config=config, results=tmp_path / "r"))
    row = next(row for row in page.rows("t-checks") if row[0] == "Leakage audit")
    assert row[1:] == ["✕ failed", "1 pair of patients who seem to be one, 1 of them on both sides of a split."]
    assert page.rows("t-audit")[1][:4] == ["slide", "P001, P007", "S01, S07", "0 and 1"]


def test_what_the_audit_comes_to():
    assert verdict(None) == "No leakage audit has run."
    assert verdict({"state": "ok", "findings": []}) == "No two patients of the cohort seem to be one."
    assert "none of them" in verdict({"state": "warned", "findings": [{"leak": False}, {"leak": False}]})


def test_every_model_has_a_look_of_its_own():
    names = [Model(method, stage).name for method in MODELS for stage in predictors(method)]
    looks = [tuple(map(str, model_style(name).values())) for name in names]
    assert len(set(looks)) == len(looks)


def test_main_models_come_first():
    assert main_models(["other", "abmil", "disentangled student"], 2) == ["disentangled student", "abmil"]
    assert main_models(["b", "a"], 5) == ["b", "a"]


def test_facts_do_not_change_the_evaluation(report):
    before = copy.deepcopy(report)
    for facts in (horizon_facts, calibration_facts, decision_facts, subgroup_facts, external_facts, comparison_facts):
        facts(report)
    assert report == before

"""The sections of pre-trained methods: monitors, retrieval, few-shot probes and lenders."""

from __future__ import annotations

import base64
import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest

from histill.evaluation.predictions import Model
from histill.methods.extras import NEIGHBOURS
from histill.methods.train import run_folder
from histill.report.few_shot import few_shot_facts
from histill.report.neighbours import code, neighbour_facts
from histill.report.pretraining import panels_of, pretraining_facts, read_curves
from histill.report.stage import run
from histill.stages import PRETRAIN
from tests.report.dom import Page, said
from tests.report.fake_pretraining import pseudonym

TASK = "survival"


@pytest.fixture(scope="module")
def page(pretrained_run):
    config, results = pretrained_run
    return run(config=config, results=results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reports(pretrained_run):
    config, results = pretrained_run
    return {task: json.loads((results / f"evaluation/{task}.json").read_text()) for task in config["tasks"]}


@pytest.fixture(scope="module")
def facts(pretrained_run, reports):
    config, results = pretrained_run
    return {found["method"]: found for found in pretraining_facts(config, results, reports)}


def section(page, name):
    start = page.index(f'<section id="{name}"')
    return page[start : page.index("</section>", start)]


def words(page, name):
    return said(Page(page).by_id(name))


def test_collapse_is_said_of_what_collapsed_alone(facts):
    assert facts["mirror"]["warnings"] == [
        "Pre-training of mirror looks collapsed: Token variance is below 0.3 of its first value in 3 of 3 runs",
        "Pre-training of mirror looks collapsed: Mutual information, RNA, is below 0.05 in 3 of 3 runs",
    ]
    assert facts["msrl"]["warnings"] == []
    rows = {(group["label"], row["of"]): row for group in facts["mirror"]["monitors"] for row in group["rows"]}
    assert not rows["Mutual information", "slide"]["collapsed"]
    assert rows["Mutual information", "slide"]["judged"]
    assert not rows["Posterior KL", "slide"]["judged"]


def test_values_are_those_of_the_first_and_of_the_kept_epoch(facts, pretrained_run):
    _, results = pretrained_run
    first, kept = [], []
    for fold in range(3):
        folder = run_folder(results, PRETRAIN, "mirror", PRETRAIN, fold, 0)
        with open(folder / "curve.csv", newline="") as handle:
            column = [float(row["monitor_rank_slide"]) for row in csv.DictReader(handle)]
        first.append(column[0])
        kept.append(column[-2] if fold == 0 else column[-1])
    rows = {(group["label"], row["of"]): row for group in facts["mirror"]["monitors"] for row in group["rows"]}
    row = rows["Effective rank", "slide"]
    assert row["first"] == {"median": sorted(first)[1], "low": min(first), "high": max(first)}
    assert row["last"] == {"median": sorted(kept)[1], "low": min(kept), "high": max(kept)}
    assert (facts["mirror"]["runs"], facts["mirror"]["epochs"]) == (3, "25 to 30 epochs")


def test_monitors_are_grouped_and_unknown_ones_are_shown(facts):
    labels = [group["label"] for group in facts["mirror"]["monitors"]]
    assert labels == [
        *("Token variance", "Effective rank", "Posterior KL", "Mutual information", "Modality gap"),
        *("Recall@10", "Something new"),
    ]
    (recall,) = (group for group in facts["mirror"]["monitors"] if group["label"] == "Recall@10")
    assert [row["of"] for row in recall["rows"]] == ["slide to RNA"]
    assert "among the 10 nearest" in recall["meaning"]


def test_names_of_monitors():
    names = [
        "monitor_mutual_information",
        "monitor_information_rna",
        "monitor_variance_slide",
        "monitor_token_variance",
    ]
    found = {panel.label: panel.columns for panel in panels_of(names)}
    assert found == {
        "Token variance": {"": "monitor_token_variance"},
        "Variance": {"slide": "monitor_variance_slide"},
        "Mutual information": {"": "monitor_mutual_information", "RNA": "monitor_information_rna"},
    }


def test_a_monitor_that_is_no_number_looks_collapsed(pretrained_run, tmp_path):
    config, source = pretrained_run
    results = tmp_path / "results"
    shutil.copytree(source, results)
    path = run_folder(results, PRETRAIN, "msrl", PRETRAIN, 1, 0) / "curve.csv"
    lines = path.read_text().splitlines()
    place = lines[0].split(",").index("monitor_effective_rank_genes")
    cells = lines[-1].split(",")
    lines[-1] = ",".join([*cells[:place], "nan", *cells[place + 1 :]])
    path.write_text("\n".join(lines) + "\n")
    (msrl,) = (found for found in pretraining_facts(config, results, {}) if found["method"] == "msrl")
    assert msrl["warnings"] == [
        "Pre-training of msrl looks collapsed: Effective rank, genes, is below 2 in 1 of 3 runs"
    ]


def test_unfinished_runs_and_methods_without_pretraining_have_no_curves(pretrained_run, tmp_path):
    config, source = pretrained_run
    results = tmp_path / "results"
    shutil.copytree(source, results)
    (run_folder(results, PRETRAIN, "mirror", PRETRAIN, 0, 0) / "receipt.json").unlink()
    assert len(read_curves(config, results, "mirror")) == 2
    assert read_curves(config, results, "abmil") == []
    assert read_curves(config, tmp_path / "nothing", "mirror") == []


def test_retrieval_is_held_against_chance(facts, reports):
    rows = facts["mirror"]["retrieval"]
    assert [(row["task"], row["asks"], row["finds"]) for row in rows[:2]] == [
        (TASK, "slide", "RNA"),
        (TASK, "RNA", "slide"),
    ]
    (aligned,) = reports[TASK]["alignment"]["models"]
    assert rows[0]["estimates"][2] == aligned["directions"]["slide_to_rna"]["recall10"]
    assert [row["reading"] for row in rows[:2]] == ["above chance", "above chance"]
    assert facts["msrl"]["retrieval"] == []


def test_recall_whose_interval_holds_chance_is_at_chance(pretrained_run, reports):
    config, results = pretrained_run
    report = json.loads(json.dumps(reports[TASK]))
    recall = report["alignment"]["models"][0]["directions"]["slide_to_rna"]["recall10"]
    recall.update(low=recall["chance"] - 0.1, high=recall["chance"] + 0.1)
    (mirror, _) = pretraining_facts(config, results, {TASK: report})
    assert mirror["retrieval"][0]["reading"] == "at chance"
    recall.update(low=1.0, value=1.0, high=1.0, chance=1.0)  # of ten patients every one is among the ten nearest
    (mirror, _) = pretraining_facts(config, results, {TASK: report})
    assert mirror["retrieval"][0]["reading"] == "cannot be told"


def test_few_shot_rows_go_from_few_to_all(reports):
    found = few_shot_facts(reports["subtype"])
    name, rows = found["models"][2]
    assert name == "mirror fused"
    assert [shots for shots, _ in rows] == ["1 shot", "5 shots", "10 shots", "all"]
    assert [len(estimates) for _, estimates in rows] == 4 * [len(reports["subtype"]["metrics"])]
    assert rows[-1][1][0] == reports["subtype"]["few_shot"]["models"]["mirror fused"]["full"]["auc"]
    assert few_shot_facts({"metrics": []}) is None


def test_lenders_are_codes_and_the_farthest_patients_come_first(pretrained_run):
    config, results = pretrained_run
    (found,) = neighbour_facts(TASK, config, results)
    assert (found["model"], found["n"]) == ("msrl student", 59)
    scores = [row["abstention"] for row in found["rows"]]
    assert len(scores) == 10
    assert scores == sorted(scores, reverse=True)
    assert found["lenders"] == {"median": 4.0, "low": 4, "high": 4}  # of five, one lends nothing
    assert found["hub"] == 1.0
    row = found["rows"][0]
    path = Model("msrl", "student").path(results, TASK, row["fold"], 0).with_name(NEIGHBOURS)
    (kept,) = (own for own in pq.read_table(path).to_pylist() if own["patient_id"] == row["patient"])
    assert row["lenders"] == [
        (code(case), weight) for case, weight in zip(kept["case"][:3], kept["weight"], strict=False)
    ]
    assert all(len(name) == 8 and int(name, 16) >= 0 for name, _ in row["lenders"])


def test_a_fold_without_lenders_leaves_the_section_out(pretrained_run, tmp_path):
    config, source = pretrained_run
    results = tmp_path / "results"
    shutil.copytree(source, results)
    Model("msrl", "student").path(results, TASK, 2, 0).with_name(NEIGHBOURS).unlink()
    assert neighbour_facts(TASK, config, results) == []
    assert len(neighbour_facts("subtype", config, results)) == 1
    assert neighbour_facts(TASK, config, tmp_path / "nothing") == []


def test_the_page_holds_the_sections(page):
    assert len(Page(page).alts("Pre-training of mirror over epochs", "Token variance")) == 1
    pretraining = section(page, "pretraining")
    assert pretraining.count("data:image/svg+xml") == 2
    text = words(page, "pretraining")
    assert "looks collapsed : below 0.3 of its first value in 3 of 3 runs" in text
    assert "slide → RNA" in text
    assert "above chance" in text
    assert "Few-shot probes" in words(page, "task-survival")
    assert section(page, "lenders").count("data:image/svg+xml") == 2
    assert "Token variance is below 0.3" in words(page, "summary")
    assert "Value of borrowed genes (msrl student less msrl slide, in C-index)" in words(page, "summary")


def test_no_training_patient_is_named_among_the_lenders(page, pretrained_run):
    config, results = pretrained_run
    text = section(page, "lenders")
    shown = {row["patient"] for task in config["tasks"] for row in neighbour_facts(task, config, results)[0]["rows"]}
    everyone = [f"P{index:03d}" for index in range(60)]
    assert {patient for patient in everyone if patient in text} == shown
    assert not any(str(pseudonym(patient)) in text for patient in everyone)


def test_a_run_without_the_files_has_no_such_sections(full_run):
    config, results = full_run
    text = run(config=config, results=results).read_text(encoding="utf-8")
    for absent in ('id="pretraining"', 'id="lenders"', "#pretraining", "#lenders", "Few-shot"):
        assert absent not in text


def test_the_figures_are_the_same_each_time(facts, pretrained_run, reports):
    config, results = pretrained_run
    again = {found["method"]: found for found in pretraining_facts(config, results, reports)}
    assert again["mirror"]["figure"] == facts["mirror"]["figure"]
    assert base64.b64decode(facts["mirror"]["figure"]["uri"].partition(",")[2]).startswith(b"<?xml")

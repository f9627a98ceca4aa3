"""Methods side by side on fake predictions of known worth: table, page and figure."""

from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from histill.errors import ConfigError, HistillError
from histill.evaluation import benchmark_figure, benchmark_text, budget
from histill.evaluation.benchmark import run
from histill.evaluation.predictions import Model
from histill.evaluation.stage import run as evaluate
from histill.methods.train import run_folder
from histill.provenance import write_json
from histill.stages import MODELS
from tests.evaluation.fake import edit, write_cohort

TASK = "survival"
METHODS = ["disentangled", "wsi-only", "abmil", "linear-slide", "linear-rna", "linear-both"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """(config, results): the benchmark has six methods, the run itself one of them."""
    results = tmp_path_factory.mktemp("benchmark")
    config = write_cohort(results, patients=90, benchmark={"methods": METHODS})
    config["methods"]["run"] = ["linear-slide"]
    return config, results


@pytest.fixture(scope="module")
def report(cohort):
    config, results = cohort
    return run(task=TASK, config=config, results=results)


def test_rows_are_all_models_by_what_they_read(report):
    assert [(row["name"], row["reads"]) for row in report["rows"]] == [
        ("disentangled student", "slide"),
        ("wsi-only", "slide"),
        ("abmil", "slide"),
        ("linear-slide", "slide"),
        ("linear-rna", "rna"),
        ("disentangled teacher", "slide+rna"),
        ("linear-both", "slide+rna"),
    ]
    assert [row["name"] for row in report["rows"] if row["student"]] == ["disentangled student"]
    learned = {row["name"]: row["learns_from"] for row in report["rows"]}
    assert (learned["disentangled student"], learned["wsi-only"], learned["linear-rna"]) == (
        "slide+rna",
        "slide",
        "rna",
    )


def test_scores_are_those_of_the_evaluation_of_these_methods(cohort, report, tmp_path):
    config, results = cohort
    assert not (results / "evaluation").exists()
    all_run = copy.deepcopy(config)
    all_run["methods"]["run"] = METHODS
    main = evaluate(task=TASK, config=all_run, results=results)
    assert {row["name"]: row["metrics"] for row in report["rows"]} == main["paired"]["models"]
    assert report["comparisons"] == main["comparisons"]
    assert report["patients"]["n"] == main["paired"]["n"]
    (results / "evaluation" / f"{TASK}.json").write_text("{}")
    run(task=TASK, config=config, results=results)
    assert (results / "evaluation" / f"{TASK}.json").read_text() == "{}"


def test_what_is_written_is_what_is_returned(cohort, report):
    _, results = cohort
    assert json.loads((results / "benchmark" / f"{TASK}.json").read_text()) == json.loads(json.dumps(report))


def test_the_value_of_distillation_is_a_row_of_its_own(cohort, report):
    _, results = cohort
    found = report["distillation"]["metrics"]["c_index"]
    by_name = {row["name"]: row["metrics"]["c_index"]["value"] for row in report["rows"]}
    assert found["value"] == pytest.approx(by_name["disentangled student"] - by_name["wsi-only"])
    assert found["low"] > 0
    page = (results / "benchmark" / f"{TASK}.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| *value of distillation*"))
    assert f"+{found['value']:.3f} (+{found['low']:.3f} to +{found['high']:.3f})" in line


def test_what_has_no_difference_is_blank_in_that_row(cohort):
    """Of the calibration slope neither more nor less is better."""
    config, results = cohort
    found = run(task="subtype", config=config, results=results)
    assert [metric["key"] for metric in found["metrics"]][-1] == "calibration_slope"
    page = (results / "benchmark" / "subtype.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| *value of distillation*"))
    *_, brier, slope, _ = line.split("|")
    assert brier.strip().startswith("−")
    assert not slope.strip()
    assert "Calibration slope (1 is best)" in page


def test_external_cohorts_have_a_table_of_their_own(report):
    models = {row["name"]: row["metrics"] for row in report["rows"][:2]}
    cohort = {"name": "Leeds", "n": 12, "events": 5, "left_out": [], "models": models}
    page = benchmark_text.page({**report, "external": {"note": "Never trained on.", "cohorts": [cohort]}})
    section = page.split("## External: Leeds")[1].split("## Budget")[0]
    assert "12 test patients with 5 events" in section
    assert [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")][2:] == [
        f"| {name}" for name in models
    ]
    assert "Never trained on." in section
    assert "## External" not in benchmark_text.page(report)


def test_without_one_of_the_two_the_page_says_so(cohort, tmp_path):
    config, results = cohort
    one = {**config, "benchmark": {"methods": ["abmil", "linear-slide"]}}
    found = run(task="subtype", config=one, results=results)
    assert found["distillation"] is None
    page = (results / "benchmark" / "subtype.md").read_text()
    assert "no row for the value of distillation" in page
    assert "RNA" not in page.split("## Budget")[0]
    assert (results / "benchmark" / "subtype.png").stat().st_size > 5_000


def test_the_table_has_a_row_a_model_and_a_difference_and_columns_for_every_metric(cohort, report):
    _, results = cohort
    with open(results / "benchmark" / f"{TASK}.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    models = [row for row in rows if row["row"] == "model"]
    assert [row["name"] for row in models] == [row["name"] for row in report["rows"]]
    for row, found in zip(models, report["rows"], strict=True):
        for metric in report["metrics"]:
            own = found["metrics"][metric["key"]]
            for suffix, name in (("", "value"), (":low", "low"), (":high", "high")):
                text = row[metric["key"] + suffix]
                assert text == "" if own[name] is None else float(text) == pytest.approx(own[name], rel=1e-5)
    pairs = {(entry["a"], entry["b"]) for entry in report["comparisons"]}
    assert {row["name"] for row in rows if row["row"] == "difference"} == {f"{a} - {b}" for a, b in pairs}


def test_the_page_has_every_model_metric_and_difference(cohort, report):
    _, results = cohort
    page = (results / "benchmark" / f"{TASK}.md").read_text()
    for row in report["rows"]:
        assert row["name"] in page
    for metric in report["metrics"]:
        assert metric["name"] in page
    for entry in report["comparisons"]:
        assert f"{entry['a']} − {entry['b']} | {entry['meaning']}" in page
    widths = {line.count("|") for line in page.split("## Differences")[0].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_the_picture_is_light_shows_the_groups_and_has_the_same_bytes_again(tmp_path, report):
    import cv2

    for name in ("a", "b"):
        benchmark_figure.write(tmp_path / f"{name}.png", report)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "a.png"))[..., ::-1].astype(int)
    assert (picture == 255).all(axis=2).mean() > 0.8
    for colour in benchmark_figure.COLOURS.values():
        own = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(picture - own).max(axis=2) < 10).sum() > 300


def test_a_benchmark_without_transcriptomes_says_who_is_left_out(cohort):
    config, results = cohort
    bare = {**copy.deepcopy(config), "benchmark": {"methods": ["disentangled", "wsi-only"]}}
    bare["cohort"]["expression"] = None
    with pytest.raises(ConfigError, match="'disentangled' needs transcriptomes"):
        run(task=TASK, config=bare, results=results)


def test_missing_predictions_are_named(cohort):
    config, results = cohort
    more = {**config, "benchmark": {"methods": [*METHODS, "mcat"]}}
    with pytest.raises(HistillError, match=r"mcat/fold0-seed0/train/predictions\.parquet does not exist"):
        run(task=TASK, config=more, results=results)


def test_models_without_a_common_patient_are_refused(tmp_path):
    config = write_cohort(tmp_path, patients=30, methods={"run": ["linear-slide", "linear-rna"]})
    config["benchmark"]["methods"] = ["linear-slide", "linear-rna"]
    for fold in range(3):
        for method, odd in (("linear-slide", 0), ("linear-rna", 1)):
            path = Model(method, "train").path(tmp_path, TASK, fold, 0)
            import pyarrow.parquet as pq

            splits = pq.read_table(path, columns=["patient_id", "split"]).to_pylist()
            for row, entry in enumerate(splits):
                if entry["split"] == "test" and int(entry["patient_id"][1:]) % 2 == odd:
                    edit(path, "split", row, "unlabelled")
    with pytest.raises(HistillError, match="no test patient with a known outcome that every model"):
        run(task=TASK, config=config, results=tmp_path)


def test_cost_counts_the_stages_that_a_model_stands_on(tmp_path):
    """Of MIRROR's student: its own training, the probe before it, and pre-training, which all tasks share."""
    seconds = {"pretrain": 100.0, "fused": 10.0, "student": 1.0}
    for fold in range(3):
        for stage, own in seconds.items():
            task = "pretrain" if stage == "pretrain" else TASK
            folder = run_folder(tmp_path, task, "mirror", stage, fold, 0)
            figures = {"patients": 50 + fold, **({"epochs": 10 * fold} if stage == "student" else {})}
            write_json(folder / "receipt.json", {"seconds": own + fold, "figures": figures})
            save_file({"a": np.zeros((3, 4)), "b": np.zeros(())}, folder / "model.safetensors")
    runs = [(fold, 0) for fold in range(3)]
    assert budget.cost(tmp_path, TASK, Model("mirror", "student"), runs) == {
        "patients": 51.0,
        "epochs": 10.0,
        "seconds": 114.0,
        "numbers": 13,
    }
    assert budget.cost(tmp_path, TASK, Model("mirror", "fused"), runs)["epochs"] is None
    gone = budget.cost(tmp_path, TASK, Model("abmil", "train"), runs)
    assert set(gone.values()) == {None}


def test_the_budget_tells_of_the_methods_there_are_alone(cohort):
    config, _ = cohort
    assert "at most 40 epochs" in budget.equal(config)[1]
    told = " ".join(budget.unequal(config, list(MODELS)))
    for method in ("disentangled", "mirror", "msrl", "meanpool", "retrieval"):
        assert f"`{method}`" in told
    assert "transmil" not in told
    assert budget.unequal(config, ["abmil", "wsi-only"]) == []
    one = copy.deepcopy(config)
    one["methods"]["transmil"]["magnification"] = "20x"
    assert budget.unequal(one, ["transmil"]) == ["`transmil` reads 20x alone."]

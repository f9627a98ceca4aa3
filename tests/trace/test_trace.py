"""Every result tells where it comes from, and what no longer fits is told by name."""

from __future__ import annotations

import json

import h5py
import pytest
from typer.testing import CliRunner

from histill import software
from histill.cli import app
from histill.errors import HistillError
from histill.evaluation import benchmark
from histill.provenance import read_json, write_json
from histill.trace.run import trace

MODEL = "models/diagnosis/linear-both/fold1-seed0/train"


def steps(found):
    return {step["name"]: step for step in found["steps"]}


def problems(path, **options):
    return {(one["kind"], one["step"], one["what"]) for one in trace(path, **options)[0]["problems"]}


def test_the_report_tells_its_whole_chain_and_holds(run):
    found, text = trace(run / "report.html", slides=True, deep=True)
    assert not found["problems"]
    names = steps(found)
    models = [f"{verb} diagnosis linear-{reads}/train" for reads in ("slide", "both") for verb in ("train", "predict")]
    assert list(names) == ["features", "transcriptome", "cohort", "audit", *models, "evaluate diagnosis", "report"]
    assert names["predict diagnosis linear-both/train"]["after"] == ["train diagnosis linear-both/train"]
    assert names["features"]["slides"] == {"ok": 40}
    assert len(found["slides"]) == 40
    assert (found["checked"]["stores"], found["checked"]["stores_whole"]) == (40, True)
    assert found["checked"]["files"] > 20
    for step in found["steps"]:
        if step["recipe_of_config"] and not step["name"].startswith("predict"):
            assert list(step["recipes"]) == [step["recipe_of_config"]]
    assert names["train diagnosis linear-both/train"]["config"]["methods.linear"]["components"] == 32
    (made,) = found["software"].values()
    assert made == software.record()
    for told in ("made by      report", "commit", "folds 0, 1; seeds 0", "slide P", made["source"]):
        assert told in text


@pytest.mark.parametrize(
    ("path", "last", "models"),
    [
        (f"{MODEL}/predictions.parquet", "predict diagnosis linear-both/train", 1),
        (f"{MODEL}/model.safetensors", "train diagnosis linear-both/train", 1),
        (MODEL, "predict diagnosis linear-both/train", 1),
        ("models", "predict diagnosis linear-slide/train", 4),
        ("evaluation/diagnosis.tsv", "evaluate diagnosis", 4),
        ("receipts/evaluation/diagnosis.json", "evaluate diagnosis", 4),
        ("figures/diagnosis/metrics.svg", "report", 4),
        ("cohort/folds.json", "cohort", 0),
        ("cohort/audit.json", "audit", 0),
        ("transcriptome/expression.h5ad", "transcriptome", 0),
        ("receipts/features.json", "features", 0),
        (".", "report", 4),
    ],
)
def test_any_result_leads_to_the_step_that_made_it(finished_run, path, last, models):
    found, _ = trace(finished_run / path)
    assert found["made_by"] == last
    assert found["steps"][-1]["name"] == last
    assert not found["problems"]
    runs = [step["receipts"] for step in found["steps"] if step["name"].startswith("train")]
    assert sum(runs) == models


def test_a_store_is_traced_for_its_slide_alone(finished_run):
    store = sorted((finished_run / "features").rglob("*.zarr"))[0]
    found, _ = trace(store, slides=True)
    assert [one["slide"] for one in found["slides"]] == [store.stem]
    assert found["checked"]["stores"] == 1


def test_what_is_missing_and_what_has_changed_is_told_by_name(run):
    (run / MODEL / "transforms.safetensors").unlink()
    with open(run / "cohort" / "folds.json", "a") as folds:
        folds.write("\n")
    told = problems(run / "report.html")
    assert told == {
        ("missing", "train diagnosis linear-both/train", f"{MODEL}/transforms.safetensors"),
        ("changed", "cohort", "cohort/folds.json"),
    }


def test_a_changed_expression_file_is_found_by_content(run):
    with h5py.File(run / "transcriptome" / "expression.h5ad", "r+") as table:
        table["X"][0, 0] += 1
    assert problems(run / "transcriptome") == {("changed", "transcriptome", "transcriptome/expression.h5ad")}


def test_a_damaged_store_is_found_where_it_is_read_whole(run):
    store = sorted((run / "features").rglob("*.zarr"))[0]
    chunk = next(path for path in sorted((store / "20x" / "X").rglob("*")) if path.is_file() and path.suffix != ".json")
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    assert not problems(run / "features")
    ((kind, step, what),) = problems(run / "features", deep=True)
    assert (kind, step) == ("changed", "features")
    assert store.name in what


def test_a_model_trained_again_makes_what_stands_on_it_stale(run):
    receipt = read_json(run / MODEL / "receipt.json")
    receipt["inputs"]["features"] = "0" * 20
    write_json(run / MODEL / "receipt.json", receipt)
    told = {(kind, step) for kind, step, _ in problems(run / "report.html")}
    assert told == {("stale", "train diagnosis linear-both/train"), ("stale", "predict diagnosis linear-both/train")}


def test_receipts_of_another_config_are_told(run):
    config = read_json(run / "config.json")
    config["evaluation"]["bootstrap"] = 200
    write_json(run / "config.json", config)
    ((kind, step, what),) = problems(run / "evaluation" / "diagnosis.json")
    assert (kind, step) == ("other recipe", "evaluate diagnosis")
    assert "config.json asks for" in what


def test_a_table_without_a_receipt_cannot_be_vouched_for(run):
    (run / "receipts" / "evaluation" / "diagnosis.json").unlink()
    assert problems(run / "evaluation" / "diagnosis.json") == {
        ("no receipt", "evaluate diagnosis", "receipts/evaluation/diagnosis.json")
    }


def test_software_that_is_not_recorded_is_said(run):
    (record,) = (run / "receipts" / "software").iterdir()
    record.unlink()
    assert f"{record.stem}: its record is gone" in trace(run / "cohort")[1]


def test_command_prints_json_and_ends_with_the_verdict(run):
    done = CliRunner().invoke(app, ["trace", str(run / "report.html"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["made_by"] == "report"
    (run / "report.html").write_text("another page")
    done = CliRunner().invoke(app, ["trace", str(run / "report.html")])
    assert done.exit_code == 1
    assert "changed: report.html (report)" in done.stderr
    assert "mend:" in done.stderr


def test_what_is_no_result_is_refused_with_the_mend(run, tmp_path):
    (run / "logs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for path, why in (("results/logs", "no stage"), ("elsewhere", "is not part of a run"), ("none", "does not exist")):
        with pytest.raises(HistillError, match=why) as error:
            trace(tmp_path / path)
        assert error.value.mend


def test_predictions_that_travel_tell_their_bundle(tmp_path):
    about = {
        "histill": "0.1.0",
        "slide": {"file": "a.svs", "fingerprint": "f" * 20},
        "bundle": {
            "digest": "d" * 20,
            "histill": "0.1.0",
            "method": "disentangled",
            "stage": "student",
            "members": 2,
            "encoder": "colour-texture",
        },
        "files": ["view.html", "tiles.geojson"],
    }
    write_json(tmp_path / "prediction.json", about)
    (tmp_path / "view.html").write_text("page")
    found, text = trace(tmp_path / "view.html")
    assert "d" * 20 in text
    assert [one["what"] for one in found["problems"]] == ["tiles.geojson"]


def test_the_benchmark_is_traced_to_the_models_it_compares(run):
    config = read_json(run / "config.json")
    config["benchmark"]["methods"] = ["linear-slide", "linear-both"]
    write_json(run / "config.json", config)
    benchmark.run(task="diagnosis", config=config, results=run)
    found, _ = trace(run / "benchmark" / "diagnosis.md")
    assert (found["made_by"], found["problems"]) == ("benchmark diagnosis", [])
    assert steps(found)["benchmark diagnosis"]["after"] == [
        "predict diagnosis linear-slide/train",
        "predict diagnosis linear-both/train",
    ]

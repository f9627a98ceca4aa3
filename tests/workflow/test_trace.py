"""A finished run from slides to report: its trace holds, and its manifest is made once."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from histill.provenance import read_json, write_json
from histill.trace.run import trace
from tests.trace.test_crate import faults

pytestmark = pytest.mark.workflow


def test_trace_of_the_report_goes_back_to_the_slides(finished):
    found, text = trace(finished.work / "results" / "report.html", slides=True)
    assert not found["problems"]
    names = [step["name"] for step in found["steps"]]
    assert names[:4] == ["inspect", "tissue", "tiles", "features"]
    steps = {step["name"]: step for step in found["steps"]}
    assert steps["tiles"]["config"]["tiles"]["size"] == 224
    assert sum(steps["inspect"]["slides"].values()) == len(found["slides"])
    # Of each slide that could be read: its fingerprint in three stages, its outline and its tiles.
    assert found["checked"]["links"] > 5 * steps["inspect"]["slides"]["ok"]
    assert all(len(step["software"]) == 1 for step in found["steps"])
    assert all(one["fingerprint"] for one in found["slides"] if one["state"] == "ok")
    assert "quarantined" in text


def test_an_edited_outline_is_a_note_and_its_tiles_are_stale(finished, tmp_path):
    results = shutil.copytree(finished.work / "results", tmp_path / "results")
    receipts = read_json(results / "receipts" / "tiles.json")["slides"]
    slide = next(receipt["slide"] for receipt in receipts if receipt["state"] == "ok")
    outline = results / "slides" / slide / "tissue.geojson"
    content = read_json(outline)
    content["features"] = content["features"][:1]
    content["features"][0]["geometry"]["coordinates"][0][0][0] += 8
    content["features"][0]["geometry"]["coordinates"][0][-1][0] += 8
    write_json(outline, content)
    found, _ = trace(outline)
    assert (found["problems"], found["notes"]) == ([], [f"slides/{slide}/tissue.geojson: edited by hand"])
    found, _ = trace(results / "slides" / slide / "tiles.parquet")
    assert [(one["kind"], one["step"]) for one in found["problems"]] == [("stale", "tiles")]


def test_manifest_is_a_valid_crate_that_names_no_slide(finished):
    results = finished.work / "results"
    content = read_json(results / "ro-crate-metadata.json")
    assert not faults(content, results)
    text = json.dumps(content)
    slides = [receipt["slide"] for receipt in read_json(results / "receipts" / "inspect.json")["slides"]]
    assert not [slide for slide in slides if slide in text]
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert entities["#slides"]["size"] == str(len(slides))
    assert {"slides/", "features/colour-texture/"} <= {part["@id"] for part in entities["./"]["hasPart"]}
    assert (results / "workflow" / "Snakefile").read_text() == (finished.source / "Snakefile").read_text()


def test_a_second_run_plans_nothing_not_even_the_manifest(finished):
    planned = re.findall(r"^(?:local)?rule (\w+):", finished.snakemake("-n").stdout, re.MULTILINE)
    assert not planned

"""A whole fake results folder: slides with pictures, receipts of every stage, predictions and their evaluation."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.evaluation.stage import run as evaluate
from histill.provenance import EMPTY, OK, QUARANTINED, Receipt, write_json
from histill.slides.quality import FLAGS
from tests.evaluation.fake import write_cohort
from tests.report import fake_parts, fake_pretraining

SECRET = "/mnt/hospital/private archive"  # must never reach the page
STAGES = ("inspect", "tissue", "tiles", "features")
LIGHTS = {"S01": ("amber", ["unusual stain: eosin is pale"]), "S04": ("red", ["only 3 tiles kept at 10x", "soft"])}
SIDE = 4480  # level-0 pixels at 0.5 µm per pixel: ten 10x tiles of 448 px a side


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """(config, results) of a finished run of 60 patients, with one quarantined and one empty slide."""
    results = tmp_path_factory.mktemp("report") / "results"
    config = write_cohort(results, report={"title": "LUAD <pilot> & more", "max_slides": 4})
    for task in config["tasks"]:
        evaluate(task=task, config=config, results=results)
    write_slides(results)
    write_json(
        results / "receipts" / "transcriptome.json",
        {
            "stage": "transcriptome",
            "counts": {"samples": 52, "patients": 50, "genes": 18234, "dropped_genes": 12},
            "warnings": ["3 gene symbols occur more than once and were summed"],
            "info": {"unit": "counts", "source": "expression.tsv.gz", "source_digest": "0" * 20},
        },
    )
    write_json(results / "receipts" / "cohort.json", {"stage": "cohort", "warnings": ["1 patients without an outcome"]})
    for rule, seconds in (
        ("tiles/S00", 3.2),
        ("tiles/S01", 4.1),
        ("train/survival/abmil-train-fold0-seed0", 75.0),
        ("report", 9.0),
    ):
        path = results / "benchmarks" / f"{rule}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{seconds}\t0:00:03\t412.5\tNA\n")
    return config, results


@pytest.fixture(scope="session")
def pretrained_run(full_run, tmp_path_factory):
    """(config, results) of the fake run with the methods that are pre-trained."""
    config, finished = full_run
    results = tmp_path_factory.mktemp("pretrained") / "results"
    shutil.copytree(finished, results)
    run = [*config["methods"]["run"], "mirror", "msrl"]
    config = {**config, "methods": {**config["methods"], "run": run}}
    fake_pretraining.write(results, config)
    for task in config["tasks"]:
        evaluate(task=task, config=config, results=results)
    return config, results


@pytest.fixture(scope="session")
def whole_run(pretrained_run, tmp_path_factory):
    """(config, results) of a run that has every part a page can have; the parts of the evaluation are made up."""
    config, finished = pretrained_run
    results = tmp_path_factory.mktemp("whole") / "results"
    shutil.copytree(finished, results)
    for task in config["tasks"]:
        fake_parts.add_parts(results / "evaluation" / f"{task}.json")
    fake_parts.write_benchmark(results, "survival")
    fake_parts.write_audit(results)
    return config, results


def write_slides(results: Path) -> None:
    rng = np.random.default_rng(0)
    receipts: dict[str, list[Receipt]] = {stage: [] for stage in STAGES}
    for index in range(8):
        slide = f"S{index:02d}"
        stop = {6: ("inspect", QUARANTINED), 7: ("tissue", EMPTY)}.get(index)
        state = OK
        for stage in STAGES:
            receipt = Receipt(slide, stage, state, "r" * 20, seconds=0.0 if state != OK else 1.5 + index)
            if stop and stop[0] == stage:
                state = receipt.state = stop[1]
                receipt.reason = f"'{SECRET}/{slide}.svs' has no resolution" if state == QUARANTINED else "no tissue"
                receipt.mend = f"give mpp for {slide} in /mnt/hospital/sheets/slides.csv"
            elif state != OK:
                receipt.reason, receipt.info = receipts[STAGES[STAGES.index(stage) - 1]][-1].reason, {"stage": stop[0]}
            else:
                _work(results, slide, stage, receipt, rng)
            receipts[stage].append(receipt)
    for stage, entries in receipts.items():
        write_json(
            results / "receipts" / f"{stage}.json", {"stage": stage, "slides": [asdict(entry) for entry in entries]}
        )


def _work(results: Path, slide: str, stage: str, receipt: Receipt, rng: np.random.Generator) -> None:
    folder = results / "slides" / slide
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "inspect":
        conflict = ["TIFF resolution says 0.25 µm per pixel"] if slide == "S02" else []
        mpp = {"x": 0.5, "y": 0.5, "source": "sheet" if slide == "S02" else "openslide.mpp-x", "candidates": []}
        info = {"vendor": "aperio", "reader": "openslide", "width": SIDE, "height": SIDE, "levels": []}
        write_json(folder / "slide.json", {**info, "mpp": {**mpp, "conflicts": conflict}, "objective_power": 20.0})
        receipt.warnings = [f"{slide}: {text}" for text in conflict]
    elif stage == "tissue":
        receipt.counts = {"tissue_mm2": 2.25, "regions": 1, "holes": 1}
        receipt.info = {"edited": slide == "S03", "mpp": 8.0}
        _picture(folder, rng)
    elif stage == "tiles":
        keep = _tiles(folder)
        flags = {f"{flag}_{level}": 2 for flag in FLAGS for level in ("10x", "20x")}
        receipt.counts = {"tiles_10x": 64, "kept_10x": keep, "tiles_20x": 256, "kept_20x": 4 * keep, **flags}
        light, reasons = LIGHTS.get(slide, ("green", []))
        receipt.info["quality"] = {"light": light, "reasons": reasons}
    else:
        receipt.counts, receipt.info = (
            {"10x": 60, "20x": 240, "unreadable": 1},
            {"encoder": "colour-texture", "dim": 128},
        )


def _picture(folder: Path, rng: np.random.Generator) -> None:
    size = SIDE // 16
    picture = np.full((size, size, 3), 242, np.uint8)
    cv2.ellipse(picture, (size // 2, size // 2), (size // 3, size // 4), 20, 0, 360, (186, 120, 200), -1)
    for x, y in rng.integers(size // 3, 2 * size // 3, (120, 2)):
        cv2.circle(picture, (int(x), int(y)), 2, (130, 60, 110), -1)
    cv2.imwrite(str(folder / "overview.jpg"), picture)
    around = np.linspace(0, 2 * np.pi, 40)
    ring = [[SIDE / 2 + SIDE / 3 * np.cos(a), SIDE / 2 + SIDE / 4 * np.sin(a)] for a in around]
    hole = [[SIDE / 2 + 200 * np.cos(a), SIDE / 2 + 200 * np.sin(a)] for a in around]
    shape = {"type": "Polygon", "coordinates": [[*ring[:-1], ring[0]], [*hole[:-1], hole[0]]]}
    feature = {"type": "Feature", "geometry": shape, "properties": {}}
    (folder / "tissue.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def _tiles(folder: Path) -> int:
    places = [(448 * column, 448 * row) for row in range(1, 9) for column in range(1, 9)]
    rows = []
    for x, y in places:
        inside = ((x + 224 - SIDE / 2) / (SIDE / 3)) ** 2 + ((y + 224 - SIDE / 2) / (SIDE / 4)) ** 2 < 1
        rows.append({"magnification": "10x", "x": x, "y": y, "width": 448, "height": 448, "keep": inside, "parent": -1})
    for parent, (x, y) in enumerate(places):
        for dx, dy in ((0, 0), (224, 0), (0, 224), (224, 224)):
            child = {"x": x + dx, "y": y + dy, "width": 224, "height": 224, "keep": rows[parent]["keep"]}
            rows.append({"magnification": "20x", **child, "parent": parent})
    clean = {"tissue": 1.0, **dict.fromkeys(FLAGS, False), "pen_colour": ""}
    table = pa.Table.from_pylist([{**row, **clean} for row in rows])
    for name in ("x", "y", "width", "height", "parent"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int32()))
    pq.write_table(table, folder / "tiles.parquet")
    return sum(row["keep"] for row in rows[: len(places)])

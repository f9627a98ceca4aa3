"""A small bundle that was trained on a painted slide: one real extraction, whose features stand for a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort import stage as cohort_stage
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.cohort.tasks import Task
from histill.config import complete
from histill.demo.design import design, slide_path
from histill.demo.make import paint_slide
from histill.evaluation import stage as evaluation
from histill.features import extract
from histill.features.store import Group, read_group, read_recipe, store_path, write_store
from histill.methods import predict, train
from histill.provenance import Receipt, tree_digest, write_json
from histill.slides import inspect, segment, tile

PATIENTS = 24
TASKS = {
    "os": {"type": "survival", "time": "time", "event": "event", "bins": 3},
    "dx": {"type": "classification", "label": "dx"},
}
STAGES = (inspect, segment, tile, extract)


def paint(folder: Path) -> Path:
    """A flawless slide of the synthetic cohort, of some 1.8 × 1.8 thousand pixels at 20x; returns its file."""
    slides = [slide for one in design({"patients": 8, "seed": 1, "size_px": 1792}) for slide in one.slides]
    clean = next(one for one in slides if one.resolution_known and not (one.corrupt or one.pen or one.blurred))
    path = slide_path(folder, clean.slide_id)
    path.parent.mkdir(parents=True)
    paint_slide(clean, folder)
    return path


def trained(slide: Path, results: Path) -> dict[str, Any]:
    """Train on a cohort of variants of a slide, predict and evaluate; returns the config."""
    config = _config(results)
    known = {"config": config, "results": results}
    for stage in STAGES:
        stage.run([Slide("painted", "painted", str(slide))], **known)
    cohort_stage.run(sheets=_cohort(results), **known)
    for task in TASKS:
        for method in config["methods"]["run"]:
            train.run(task=task, method=method, stage="train", **known, log=lambda _: None)
        predict.run(task=task, **known, log=lambda _: None)
        evaluation.run(task=task, **known)
    return config


def _config(results: Path) -> dict[str, Any]:
    return complete(
        {
            "results": str(results),
            "cohort": {},
            "tasks": TASKS,
            "folds": {"n": 2},
            "training": {"device": "cpu", "model": {"epochs": 2}},
            "methods": {
                "run": ["wsi-only", "meanpool"],
                "disentangled": {"model": {"dim": 16, "heads": 2}},
                "meanpool": {"hidden": 16},
            },
            "evaluation": {"bootstrap": 100},
        }
    )


def _cohort(results: Path) -> Sheets:
    """Write a store a patient: the painted slide's features with some noise; and the sheets."""
    generator = np.random.default_rng(0)
    first = results / store_path("colour-texture", "painted")
    levels = {level: read_group(first, level) for level in ("10x", "20x")}
    sheets = Sheets(tasks={name: Task.from_config(name, own) for name, own in TASKS.items()})
    receipts = []
    for number in range(PATIENTS):
        slide = patient = f"P{number:02d}"
        groups = {level: _like(group, generator) for level, group in levels.items()}
        path = store_path("colour-texture", slide)
        write_store(results / path, groups, read_recipe(first, "10x"))
        receipts.append(Receipt(slide, "features", "ok", "r", outputs={path: tree_digest(results / path)}))
        sheets.slides[slide] = Slide(slide, patient, "none")
        sheets.clinical.rows[patient] = {
            "time": str(round(generator.exponential(20.0) + 1, 2)),
            "event": str(int(number % 4 > 0)),
            "dx": ("a", "b")[number % 2],
        }
    sheets.clinical = Clinical("clinical.csv", ["patient_id", "time", "event", "dx"], sheets.clinical.rows)
    write_json(results / "receipts" / "features.json", {"stage": "features", "slides": [vars(one) for one in receipts]})
    return sheets


def _like(group: Group, generator: np.random.Generator) -> Group:
    """The slide as another patient's: shifted as a whole, and tile by tile."""
    x = group.x.astype(np.float64)
    spread = x.std(axis=0)
    noise = generator.normal(size=x.shape[1]) + 0.3 * generator.normal(size=x.shape)
    return Group((x + spread * noise).astype(np.float16), group.spatial, group.obs)

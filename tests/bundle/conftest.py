"""A small trained cohort whose ids, sites and places must not be found again in any bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histill.bundle.export import export
from histill.cohort import stage as cohort_stage
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.cohort.tasks import Task
from histill.encoders import recipes
from histill.evaluation import stage as evaluation
from histill.features.store import store_path, write_store
from histill.methods import predict, train
from histill.provenance import Receipt, tree_digest, write_json
from histill.stages import MODELS, task_of
from tests.methods.conftest import TASKS, _bag, _write_genes, planted_config

PATIENTS, FOLDS = 36, 2
RECIPE = {
    **recipes.get("uni").as_dict(),
    "off_recipe": [],
    "tile_size": 224,
    "stain": {"method": "none", "target": None},
    "weights": {"revision": None, "sha256": {"secret-weights.bin": "ab" * 32}},
}
SECRETS = ("secret", "hostile")  # lower case; in every id, site and place below
RUN = ["disentangled", "mirror", "msrl", "meanpool", "abmil", "transmil", "linear-slide", "linear-rna", "retrieval"]


def stores(results: Path, ids: list[str], *, seed: int = 0, recipe: dict[str, Any] = RECIPE, shift: float = 0.0):
    """Write two slides a patient, and return slide id -> patient."""
    generator = np.random.default_rng(seed)
    owners = {f"SECRET-SLIDE-{patient[-3:]}-{number}": patient for patient in ids for number in range(2)}
    for slide in owners:
        groups = {level: _bag(generator, generator.normal(size=2), count) for level, count in (("10x", 4), ("20x", 8))}
        for group in groups.values():
            group.x += np.float16(shift)
        write_store(results / store_path("colour-texture", slide), groups, recipe)
    return owners


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Task -> config of a cohort that was trained, predicted and evaluated: `os` by all methods, `dx` by two."""
    results = tmp_path_factory.mktemp("secret-place") / "results"
    config = planted_config(results, {}, epochs=1)
    config["folds"]["n"], config["methods"]["run"] = FOLDS, RUN
    config["evaluation"]["bootstrap"] = 100
    # Read by nothing after the extraction, and known to this machine alone.
    config["features"] |= {"weights": "/secret/weights.bin", "also": {"uni": "/secret/uni"}}
    config["tissue"]["weights"] = "/secret/tissue.pt"
    generator = np.random.default_rng(0)
    ids = [f"SECRET-PATIENT-{index:03d}" for index in range(PATIENTS)]
    factors = generator.normal(size=(PATIENTS, 2))
    sheets = Sheets(expression="planted", tasks={name: Task.from_config(name, own) for name, own in TASKS.items()})
    receipts = []
    for slide, patient in stores(results, ids).items():
        path = store_path("colour-texture", slide)
        receipts.append(Receipt(slide, "features", "ok", "r", outputs={path: tree_digest(results / path)}))
        sheets.slides[slide] = Slide(slide, patient, "none")
    rows = {
        patient: {
            "time": str(round(generator.exponential(20.0), 2)),
            "event": str(int(index % 4 > 0)),
            "dx": "ab"[index % 2],
            "site": f"Hostile Hospital {index % 3}",
        }
        for index, patient in enumerate(ids)
    }
    sheets.clinical = Clinical("clinical.csv", ["patient_id", "time", "event", "dx", "site"], rows)
    write_json(results / "receipts" / "features.json", {"stage": "features", "slides": [vars(one) for one in receipts]})
    _write_genes(generator, results, config, ids, factors, ())
    cohort_stage.run(sheets=sheets, config=config, results=results)
    few = {**config, "methods": {**config["methods"], "run": ["disentangled", "linear-slide"]}}
    configs = {"os": config, "dx": few}
    for task, own in configs.items():
        for method in own["methods"]["run"]:
            for stage in MODELS[method]:
                known = {"method": method, "stage": stage, "config": own, "results": results}
                train.run(task=task_of(method, stage, task), **known, log=lambda _: None)
        predict.run(task=task, config=own, results=results, log=lambda _: None)
        evaluation.run(task=task, config=own, results=results)
    return configs


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Callable[..., Path]:
    """Function that gives the bundle of a stage; it is written once, and nobody may change it."""
    made: dict[tuple, Path] = {}

    def give(task: str = "os", method: str = "disentangled", stage: str = "student") -> Path:
        key = (task, method, stage)
        if key not in made:
            out = tmp_path_factory.mktemp("bundles") / "-".join(key)
            known = {"config": trained[task], "task": task, "method": method, "stage": stage}
            made[key] = export(**known, out=out, log=lambda _: None)
        return made[key]

    return give

"""A cohort at feature level with planted factors: what training reads, without pixels."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.cohort import stage as cohort_stage
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.cohort.tasks import Task
from histill.config import complete
from histill.features.store import Group, read_group, store_path, write_store
from histill.methods import train
from histill.provenance import Receipt, tree_digest, write_json
from histill.stages import MODELS, task_of
from histill.transcriptome import stage as transcriptome_stage
from histill.transcriptome.gene_sets import members, subspaces

DIM = 16
TASKS = {
    "os": {"type": "survival", "time": "time", "event": "event", "bins": 4},
    "dx": {"type": "classification", "label": "dx"},
}


def planted_config(results: Path, transform: dict[str, Any], **model: Any) -> dict[str, Any]:
    options = {"epochs": 25, "patience": 25, "learning_rate": 2e-3, **model}
    return complete(
        {
            "results": str(results),
            "cohort": {},
            "transcriptome": {"transform": transform},
            "tasks": TASKS,
            "folds": {"n": 3},
            "training": {"device": "cpu", "model": options},
            "methods": {
                "disentangled": {"model": {"dim": 32}},
                "meanpool": {"hidden": 32},
                "abmil": {"dim": 32},
                "transmil": {"dim": 32, "landmarks": 16},
                "snn": {"dim": 32},
                "mcat": {"dim": 32},
                "mirror": {
                    "model": {"dim": 32, "heads": 4, "landmarks": 16, "latent": 8, "hidden": [32], "prototypes": 8},
                    "pretrain": {"epochs": options["epochs"], "learning_rate": 1e-3},
                    "probe": {"shots": [3], "draws": 2, "alphas": [0.1, 1.0]},
                    "student": {"learning_rate": 1e-3},
                },
                "msrl": {
                    "model": {"dim": 32, "hidden": 32, "neighbours": 5},
                    "pretrain": {"epochs": options["epochs"], "projection": 16},
                    "student": {"batch_size": 16, "learning_rate": 3e-3},
                },
            },
        }
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Callable[..., tuple[Path, dict[str, Any], np.ndarray]]:
    """Function that writes a planted cohort: returns results folder, config and the true risk of each patient.

    Tumour tiles carry the tumour factor, microenvironment tiles the other one; genes carry both; outcome depends on
    their sum. `corrupt` names patients whose features, genes and site are replaced by nonsense. `transform` goes into
    the config's `transcriptome`, `model` into its `training`.
    """

    def write(
        patients: int = 90, corrupt: tuple[str, ...] = (), transform: dict[str, Any] | None = None, **model: Any
    ) -> tuple[Path, dict[str, Any], np.ndarray]:
        generator = np.random.default_rng(0)
        results = tmp_path_factory.mktemp("planted")
        config = planted_config(results, transform or {}, **model)
        factors = generator.normal(size=(patients, 2))
        risk = factors.sum(axis=1)
        ids = [f"P{index:03d}" for index in range(patients)]
        time = generator.exponential(np.exp(-1.5 * risk))
        event = (generator.random(patients) < 0.8).astype(int)
        sheets = Sheets(
            expression="planted", tasks={name: Task.from_config(name, task) for name, task in TASKS.items()}
        )
        rows, receipts = {}, []
        for index, patient in enumerate(ids):
            groups = {level: _bag(generator, factors[index], count) for level, count in (("10x", 6), ("20x", 24))}
            if patient in corrupt:
                groups = {
                    level: Group(1e3 * group.x[::-1], group.spatial, group.obs) for level, group in groups.items()
                }
            path = store_path("colour-texture", f"{patient}-1")
            write_store(results / path, groups, {})
            receipts.append(Receipt(f"{patient}-1", "features", "ok", "r", outputs={path: tree_digest(results / path)}))
            sheets.slides[f"{patient}-1"] = Slide(f"{patient}-1", patient, "none")
            rows[patient] = {
                "time": str(time[index]),
                "event": str(event[index]),
                "dx": "ab"[int(risk[index] > 0)],
                "site": "elsewhere" if patient in corrupt else f"site {index % 3}",
            }
        sheets.clinical = Clinical("clinical.csv", ["patient_id", "time", "event", "dx", "site"], rows)
        write_json(
            results / "receipts" / "features.json",
            {"stage": "features", "slides": [vars(receipt) for receipt in receipts]},
        )
        _write_genes(generator, results, config, ids, factors, corrupt)
        cohort_stage.run(sheets=sheets, config=config, results=results)
        (results / "cohort" / "pseudonyms.key").write_bytes(bytes(32))  # of two cohorts that are compared the same
        return results, config, risk

    return write


@pytest.fixture
def clone(tmp_path_factory) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Function that copies a results folder without its models, and the config that belongs to the copy.

    The slides of patients that `corrupt` names become nonsense. `patients` maps patients to cells of
    `patients.parquet` that are others in the copy.
    """

    def copied(
        results: Path,
        config: dict[str, Any],
        *,
        corrupt: tuple[str, ...] = (),
        patients: dict[str, dict[str, Any]] | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        other = tmp_path_factory.mktemp("clone") / "results"
        shutil.copytree(results, other, ignore=shutil.ignore_patterns("models", "features"))
        stores = (results / store_path("colour-texture", "any")).parent
        (other / stores.relative_to(results)).mkdir(parents=True)
        for store in stores.iterdir():
            os.symlink(store.resolve(), other / store.relative_to(results))
        for patient in corrupt:
            store = store_path("colour-texture", f"{patient}-1")
            groups = {level: read_group(results / store, level) for level in ("10x", "20x")}
            (other / store).unlink()
            write_store(other / store, {k: Group(1e3 * g.x[::-1], g.spatial, g.obs) for k, g in groups.items()}, {})
        place = other / "cohort" / "patients.parquet"
        table = pq.read_table(place)
        rows = [{**row, **(patients or {}).get(row["patient_id"], {})} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), place)
        return other, {**copy.deepcopy(config), "results": str(other)}

    return copied


@pytest.fixture(scope="session")
def train_stages() -> Callable[..., list[str]]:
    """Function that trains stages of a method in one fold, or in `only=None` all, and returns what they said."""

    def train_them(
        results: Path, config: dict[str, Any], method: str, *stages: str, task: str = "os", only=(0, 0)
    ) -> list[str]:
        said: list[str] = []
        for stage in stages or MODELS[method]:
            known = {"method": method, "stage": stage, "config": config, "results": results}
            train.run(task=task_of(method, stage, task), **known, only=only, log=said.append)
        return said

    return train_them


def _bag(generator: np.random.Generator, factors: np.ndarray, count: int) -> Group:
    kind = np.arange(count) % 3  # tumour, microenvironment, neither
    x = 0.5 * generator.normal(size=(count, DIM))
    x[kind == 0, :2] += [3.0, factors[0]]
    x[kind == 1, 2:4] += [3.0, factors[1]]
    return Group(x.astype(np.float16), np.zeros((count, 2)), {"valid": np.ones(count, bool)})


def _write_genes(generator, results, config, ids, factors, corrupt) -> None:
    spaces = subspaces(config)
    genes, columns = [], []
    for factor, own in zip(factors.T, spaces.values(), strict=True):
        for gene in members(own)[:30]:
            if gene not in genes:
                genes.append(gene)
                columns.append(5 + factor + 0.7 * generator.normal(size=len(ids)))
    matrix = np.column_stack(columns)
    for index, patient in enumerate(ids):
        if patient in corrupt:
            matrix[index] = 1e4
    # Every fifth patient has no RNA.
    kept = [index for index in range(len(ids)) if index % 5]
    names = [ids[index] for index in kept]
    counts = np.exp2(np.minimum(matrix[kept] + 3, 30)).round()
    content = transcriptome_stage.write(
        results / transcriptome_stage.OUTPUT, matrix[kept], names, names, genes, {}, counts=counts
    )
    receipt = {"stage": "transcriptome", "inputs": {"gene_sets": "x"}, "outputs": {"expression": content}}
    write_json(results / "receipts" / "transcriptome.json", receipt)

"""Prediction: every patient a model can read, by every trained run of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort
from histill.methods.checkpoint import Checkpoint
from histill.methods.train import linear_inputs, run_folder, runs
from histill.provenance import atomic_file, digest, file_digest, read_json, write_json
from histill.stages import MODELS, READS, recipe
from histill.subspaces import SUBSPACES


def run(*, task: str, config: dict[str, Any], results: str | Path, log=print) -> dict[str, Any]:
    """Write `predictions.parquet` beside every checkpoint of the task; returns the receipt."""
    results = Path(results)
    definition = Task.from_config(task, config["tasks"][task])
    stages = [(method, stage) for method in config["methods"]["run"] for stage in MODELS[method]]
    slide_only = Cohort.read(results, config["features"]["encoder"])
    paired = None
    outputs = {}
    for method, stage in stages:
        needs_genes = "rna" in MODELS[method][stage].reads
        if needs_genes and paired is None:
            paired = Cohort.read(results, config["features"]["encoder"], ExpressionTable.read(results, config))
        cohort = paired if needs_genes else slide_only
        for fold, seed in runs(config, results):
            folder = run_folder(results, task, method, stage, fold, seed)
            path = folder / "predictions.parquet"
            trained = read_json(folder / "receipt.json")
            key = digest([trained["outputs"], trained["inputs"], recipe("predict", config, task=task)])
            marker = folder / "predictions.json"
            if not (path.exists() and marker.exists() and read_json(marker)["key"] == key):
                table = predict(Checkpoint.read(folder), cohort, definition, fold, device=config["training"]["device"])
                _write(path, table)
                write_json(marker, {"key": key, "digest": file_digest(path)})
                log(f"{task} {method} {stage} fold {fold} seed {seed}: {len(table['patient_id'])} patients")
            outputs[path.relative_to(results).as_posix()] = read_json(marker)["digest"]
    receipt = {"stage": "predict", "task": task, "recipe": recipe("predict", config, task=task), "outputs": outputs}
    write_json(results / "receipts" / f"predict-{task}.json", receipt)
    return receipt


def predict(checkpoint: Checkpoint, cohort: Cohort, task: Task, fold: int, *, device: str = "auto") -> dict[str, list]:
    """Columns of a prediction table for every patient that has what the model reads.

    `imputed_genes`, of models that read transcriptomes, counts a patient's genes that were not measured and stand at
    the training mean.
    """
    needs = READS[checkpoint.kind]
    patients = sorted(
        patient
        for patient in cohort.patients["patient_id"]
        if ("slide" not in needs or cohort.value(patient, "has_slide"))
        and ("rna" not in needs or cohort.value(patient, "has_rna"))
    )
    if checkpoint.kind.startswith("linear"):
        values = _predict_linear(checkpoint, cohort, patients)
    else:
        values = _predict_network(checkpoint, cohort, patients, device)
    table: dict[str, list] = {
        "patient_id": patients,
        "split": [cohort.split(task, fold, patient) for patient in patients],
        "modalities": ["+".join(needs)] * len(patients),
    }
    if "rna" in needs:
        table["imputed_genes"] = cohort.expression.imputed(patients, checkpoint.expression)
    if task.type == "survival":
        table["risk"] = values[:, 0].tolist()
    else:
        table.update({f"p:{name}": values[:, index].tolist() for index, name in enumerate(checkpoint.labels.classes)})
    return table


def network_outputs(checkpoint: Checkpoint, cohort: Cohort, patients: list[str], *, device: str = "auto") -> dict:
    """Raw outputs of a network, patient by patient with every tile: name -> level -> tensor [P, ...]."""
    import torch

    from histill.data.module import BagDataset, collate
    from histill.device import lease

    network = checkpoint.network()
    targets = {}
    if "rna" in READS[checkpoint.kind]:
        genes = cohort.expression.transformed(patients, checkpoint.expression)
        targets = {subspace: torch.from_numpy(genes[subspace]) for subspace in SUBSPACES}
    dataset = BagDataset(patients, cohort.bags, checkpoint.scalers, targets)
    collected: dict[str, dict[str, list]] = {}
    with lease(device) as where, torch.inference_mode():
        network.to(where)
        for index in range(len(dataset)):
            batch = _move(collate([dataset[index]]), where)
            batch["genes"] = batch.pop("targets")
            output = network(batch)
            for name in ("logits", *SUBSPACES):
                for level, value in output.get(name, {}).items():
                    collected.setdefault(name, {}).setdefault(level, []).append(value.cpu())
            present = {level: mask.any(dim=-1) for level, mask in batch["mask"].items()}
            for level, value in present.items():
                collected.setdefault("present", {}).setdefault(level, []).append(value.cpu())
    return {name: {level: torch.cat(parts) for level, parts in levels.items()} for name, levels in collected.items()}


def _move(value, device):
    return {k: _move(v, device) for k, v in value.items()} if isinstance(value, dict) else value.to(device)


def _predict_network(checkpoint: Checkpoint, cohort: Cohort, patients: list[str], device: str) -> np.ndarray:
    from histill.methods.outputs import fuse, risk

    outputs = network_outputs(checkpoint, cohort, patients, device=device)
    survival = checkpoint.labels.task.type == "survival"
    fused = fuse(outputs["logits"], outputs["present"], survival)
    return (risk(fused).unsqueeze(1) if survival else fused).double().numpy()


def _predict_linear(checkpoint: Checkpoint, cohort: Cohort, patients: list[str]) -> np.ndarray:
    from histill.methods.baselines.linear import LinearModel

    inputs = linear_inputs(cohort, patients, READS[checkpoint.kind], checkpoint.expression)
    return LinearModel.from_state(checkpoint.weights).predict(inputs)


def _write(path: Path, table: dict[str, list]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as part:
        pq.write_table(pa.table(table), part)

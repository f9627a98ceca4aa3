"""What pre-trained methods leave: curves of monitors, predictions, few-shot probes, embeddings, lenders."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histill.evaluation.predictions import Model
from histill.methods.extras import NEIGHBOURS
from histill.methods.train import run_folder
from histill.provenance import write_csv, write_json
from histill.stages import PRETRAIN
from tests.evaluation.fake_pretraining import write_embeddings, write_few_shot

# Model -> the one whose predictions it repeats.
TWINS = {
    Model("mirror", "slide"): Model("linear-slide", "train"),
    Model("mirror", "rna"): Model("linear-rna", "train"),
    Model("mirror", "fused"): Model("linear-both", "train"),
    Model("mirror", "student"): Model("disentangled", "student"),
    Model("msrl", "slide"): Model("abmil", "train"),
    Model("msrl", "student"): Model("wsi-only", "train"),
    Model("msrl", "both"): Model("disentangled", "teacher"),
}
EPOCHS = 30
# Column -> value at the first and at the last epoch.
MIRROR = {
    "train_loss": (1.5, 0.4),
    "validation_loss": (1.6, 0.6),
    "monitor_token_variance": (0.87, 0.19),
    "monitor_rank_slide": (20.0, 12.0),
    "monitor_information_slide": (0.0, 0.9),
    "monitor_rank_rna": (24.0, 15.0),
    "monitor_information_rna": (0.0, 0.004),
    "monitor_kl_slide": (2.8, 1.5),
    "monitor_modality_gap": (1.1, 0.3),
    "monitor_recall10_slide_to_rna": (0.4, 0.9),
    "monitor_something_new": (0.0, 1.0),
}
MSRL = {
    "train_loss": (8.0, 5.0),
    "validation_loss": (8.2, 6.0),
    "monitor_effective_rank_slide": (30.0, 25.0),
    "monitor_effective_rank_genes": (30.0, 28.0),
    "monitor_homophily": (0.3, 0.7),
    "monitor_recall10": (0.3, 0.8),
}


def write(results: Path, config: dict, *, folds=3) -> None:
    """Everything of the methods `mirror` and `msrl`, for every task, fold and seed of a fake cohort."""
    for method, ends in (("mirror", MIRROR), ("msrl", MSRL)):
        for fold in range(folds):
            for seed in config["seeds"]:
                write_curve(run_folder(results, PRETRAIN, method, PRETRAIN, fold, seed), ends, fold)
    for task in config["tasks"]:
        for model, twin in TWINS.items():
            for fold in range(folds):
                for seed in config["seeds"]:
                    path = model.path(results, task, fold, seed)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(twin.path(results, task, fold, seed), path)
        for model in list(TWINS)[:3]:
            write_few_shot(results, config, task, model)
        write_embeddings(results, config, task, Model("mirror", "fused"))
        for fold in range(folds):
            write_neighbours(Model("msrl", "student").path(results, task, fold, config["seeds"][0]), fold)


def write_curve(folder: Path, ends: dict[str, tuple[float, float]], fold: int) -> None:
    """Fold 0 stops early; its weights of the epoch before are kept."""
    epochs = EPOCHS - 5 if fold == 0 else EPOCHS
    rng = np.random.default_rng(fold)
    rows = []
    for epoch in range(epochs):
        left = np.exp(-5 * epoch / (epochs - 1))
        values = {
            name: (last + (first - last) * left) * rng.uniform(0.97, 1.03) for name, (first, last) in ends.items()
        }
        rows.append({"epoch": epoch, **values})
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "curve.csv", ["epoch", *ends], rows)
    write_json(
        folder / "receipt.json", {"figures": {"best_epoch": epochs - 2} if fold == 0 else {"last_epoch": epochs - 1}}
    )


def write_neighbours(predictions: Path, fold: int, *, lenders=5) -> None:
    """Every test patient borrows from the case of the first training patient, and from four others."""
    table = pq.read_table(predictions, columns=["patient_id", "split"]).to_pylist()
    codes = [pseudonym(row["patient_id"]) for row in table if row["split"] == "train"]
    rng = np.random.default_rng(fold)
    rows = []
    for row in table:
        if row["split"] == "test":
            others = rng.choice(len(codes) - 1, lenders - 1, replace=False) + 1
            score = float(np.clip(rng.normal(0.4, 0.3), 0, 1))
            rows.append(
                {
                    "patient_id": row["patient_id"],
                    "case": [codes[place] for place in (0, *others)],
                    "weight": [0.4, 0.3, 0.2, 0.1, 0.0],
                    "similarity": 0.9 - 0.5 * score,
                    "abstention": score,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), predictions.with_name(NEIGHBOURS))


def pseudonym(patient: str) -> int:
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") >> 1

"""What models on pre-trained encoders leave beside their predictions: few-shot probes and aligned embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histill.evaluation.predictions import Model
from histill.methods.extras import EMBEDDINGS, FEW_SHOT


def write_few_shot(
    results: Path, config: dict, task: str, model: Model, *, shots=(1, 5, 10), draws=3, folds=3, noise=3.0
) -> None:
    """Probes that see the predictions of a model through noise, the less of it the more shots."""
    for fold in range(folds):
        for seed in config["seeds"]:
            path = model.path(results, task, fold, seed)
            table = pq.read_table(path)
            table = table.filter(pa.array([split == "test" for split in table["split"].to_pylist()]))
            columns = [name for name in table.column_names if name == "risk" or name.startswith("p:")]
            values = np.column_stack([table[name].to_numpy() for name in columns])
            parts = []
            for k in shots:
                for draw in range(draws):
                    rng = np.random.default_rng([fold, seed, k, draw, len(model.name)])
                    seen = _noisy(values, noise / np.sqrt(k), rng)
                    rows = {"patient_id": table["patient_id"], "shots": [k] * len(seen), "draw": [draw] * len(seen)}
                    parts.append(pa.table(rows | {name: seen[:, i] for i, name in enumerate(columns)}))
            pq.write_table(pa.concat_tables(parts), path.with_name(FEW_SHOT))


def _noisy(values: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    if values.shape[1] == 1:
        return values + noise * values.std() * rng.standard_normal(values.shape)
    logits = np.log(values) + noise * rng.standard_normal(values.shape)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def write_embeddings(results: Path, config: dict, task: str, model: Model, *, folds=3, noise=0.5, dim=16) -> None:
    """Embeddings of one latent a patient, seen with noise by each modality; an infinite noise leaves no relation."""
    for fold in range(folds):
        for seed in config["seeds"]:
            path = model.path(results, task, fold, seed)
            table = pq.read_table(path, columns=["patient_id", "split"])
            table = table.filter(pa.array([split == "test" for split in table["split"].to_pylist()]))
            rng = np.random.default_rng([fold, seed])
            latent = rng.standard_normal((table.num_rows, dim)) if np.isfinite(noise) else 0.0
            spread = noise if np.isfinite(noise) else 1.0
            for name in ("slide", "rna"):
                rows = latent + spread * rng.standard_normal((table.num_rows, dim))
                table = table.append_column(name, pa.array(rows.tolist(), pa.list_(pa.float32())))
            pq.write_table(table, path.with_name(EMBEDDINGS))

"""A small results folder as the cohort and predict stages would leave it, made from known truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histill import config as configs
from histill.evaluation.predictions import expected_models

# How much of the true risk each model sees: the order of the methods is known in advance.
SIGNAL = {
    "disentangled teacher": 2.5,
    "disentangled student": 1.8,
    "linear-both": 1.5,
    "linear-rna": 1.2,
    "wsi-only": 0.8,
    "abmil": 0.6,
    "linear-slide": 0.3,
}
TASKS = {
    "survival": {"type": "survival", "time": "days", "event": "died"},
    "subtype": {"type": "classification", "label": "subtype"},
}


def write_cohort(
    results: Path, *, patients=60, folds=3, seeds=(0,), classes=("basal", "classical"), **overrides
) -> dict:
    """Write cohort and prediction files; return the complete config. One patient in six lacks RNA, one the outcome."""
    config = configs.complete(
        {
            "results": str(results),
            "cohort": {"slides": "slides.csv", "clinical": "clinical.csv", "expression": "expression.tsv"},
            "tasks": TASKS,
            "folds": {"n": folds},
            "seeds": list(seeds),
            "evaluation": {"bootstrap": 200},
            **overrides,
        }
    )
    rng = np.random.default_rng(7)
    names = [f"P{index:03d}" for index in range(patients)]
    truth = rng.standard_normal(patients)
    time = np.round(rng.exponential(np.exp(-truth)) * 1000 + 1)
    censored = rng.exponential(2500, patients)
    event = (time <= censored).astype(int)
    time = np.minimum(time, np.round(censored) + 1)
    label = np.digitize(truth, np.quantile(truth, np.arange(1, len(classes)) / len(classes)))
    fold = np.arange(patients) % folds
    rna = np.arange(patients) % 6 != 5
    known = np.arange(patients) != 1
    table = {
        "patient_id": names,
        "n_slides": [1] * patients,
        "slides": [[f"{name}-A"] for name in names],
        "has_slide": [True] * patients,
        "has_rna": rna.tolist(),
        "site": [None] * patients,
        "fold": fold.tolist(),
        "time:survival": [float(t) if k else None for t, k in zip(time, known, strict=True)],
        "event:survival": [int(e) if k else None for e, k in zip(event, known, strict=True)],
        "label:subtype": [classes[c] if k else None for c, k in zip(label, known, strict=True)],
    }
    (results / "cohort").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), results / "cohort" / "patients.parquet")
    assignment = {name: [int(number)] for name, number in zip(names, fold, strict=True)}
    document = {
        "n": folds,
        "repeats": 1,
        "source": "test",
        "assignment": assignment,
        "classes": {"survival": [], "subtype": list(classes)},
    }
    (results / "cohort" / "folds.json").write_text(json.dumps(document))
    for task in config["tasks"]:
        for model in expected_models(config):
            for k in range(folds):
                for seed in seeds:
                    noise = np.random.default_rng([k, seed, len(model.name)]).standard_normal((patients, len(classes)))
                    columns = _columns(task, SIGNAL[model.name], truth, label, noise, classes, scale=k + 1)
                    if task == "survival":
                        ends = np.quantile(time[(event == 1) & (fold != k) & known], [0.25, 0.5, 0.75])
                        columns |= _survival(SIGNAL[model.name], truth, noise, ends)
                    split = np.where(~known, "unlabelled", np.where(fold == k, "test", "train"))
                    split[(split == "train") & (np.arange(patients) % 7 == 0)] = "validation"
                    rows = {
                        "patient_id": names,
                        "split": split.tolist(),
                        "modalities": [model.inputs] * patients,
                        **columns,
                    }
                    keep = rna if "rna" in model.inputs else np.ones(patients, bool)
                    path = model.path(results, task, k, seed)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pq.write_table(pa.table(rows).filter(pa.array(keep)), path)
    return config


def _columns(task, signal, truth, label, noise, classes, scale) -> dict[str, list[float]]:
    if task == "survival":  # every fold's model has a scale of its own
        return {"risk": (scale * (signal * truth + noise[:, 0])).tolist()}
    logits = signal * np.eye(len(classes))[label] + noise
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {f"p:{name}": probability[:, index].tolist() for index, name in enumerate(classes)}


def _survival(signal, truth, noise, ends) -> dict[str, list[float]]:
    """Survival at the ends of a model's intervals, calibrated as well as what it sees allows."""
    seen = (signal * truth + noise[:, 0]) * signal / (signal**2 + 1)
    return {f"s:{end!r}": np.exp(-end / 1000 * np.exp(seen)).tolist() for end in ends.tolist()}


def edit(path: Path, column: str, row: int, value) -> None:
    """Change one value of a parquet table."""
    table = pq.read_table(path).to_pydict()
    table[column][row] = value
    pq.write_table(pa.table(table), path)

"""Retrieval across modalities: does the slide of a test patient find its own transcriptome, and the other way round?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import HistillError
from histill.evaluation.estimates import Estimate
from histill.evaluation.metrics import weighted_mean
from histill.evaluation.predictions import MEND_STALE, Outcomes, Predictions, describe_folds, read_table
from histill.evaluation.sampling import Sample
from histill.methods.extras import EMBEDDINGS

RECALLS = (1, 5, 10)
DIRECTIONS = {"slide_to_rna": ("slide", "rna"), "rna_to_slide": ("rna", "slide")}
TIED = 1e-7  # cosines closer than this are equal: embeddings are float32
_MEND = "delete it and run again: snakemake evaluate"
NOTE = (
    "Each test patient's embedding of one modality is compared, by cosine, with those of the other modality of all "
    "test patients of the fold. Recall@k is the share of patients whose own is among the k nearest; the best mean rank "
    "is 1. Ties are broken at random, so embeddings that are all alike give chance: k / n, and (n + 1) / 2 for the "
    "rank, with n patients in the fold. Values are means over folds and seeds; intervals resample the patients that "
    "ask, within folds, while those that can be found stay."
)


def run(
    results: Path,
    task: str,
    predictions: Predictions,
    outcomes: Outcomes,
    *,
    seeds: list[int],
    draws: int,
    seed: int,
    confidence: float,
) -> dict[str, Any] | None:
    """Score the aligned embeddings that lie beside the predictions of a model.

    Returns
    -------
    None where there are none. Else `model`, `method`, `n` patients, `folds` (`fold`, `n`), and `directions`:
    `slide_to_rna` and `rna_to_slide`, each `recall1`, `recall5`, `recall10`, `mean_rank` -> estimate with `chance`.

    Raises
    ------
    HistillError
        A file is missing that other folds and seeds have, holds a test patient of another fold, a patient twice, or
        embeddings that are not finite.
    """
    model = predictions.model
    paths = {
        run: model.path(results, task, *run).with_name(EMBEDDINGS) for run, tested in predictions.test.items() if tested
    }
    if not any(path.exists() for path in paths.values()):
        return None
    read = {(fold, number): _read(path, outcomes, fold) for (fold, number), path in paths.items()}
    folds = {
        fold: sorted(set.intersection(*(set(read[fold, number]["slide"]) for number in seeds)))
        for fold in outcomes.folds
        if all((fold, number) in read for number in seeds)
    }
    folds = {fold: members for fold, members in folds.items() if len(members) > 1}
    always = dict.fromkeys(folds, lambda weights: np.ones(len(weights), dtype=bool))
    sample = Sample.draw(folds, always, draws, seed)
    directions = {}
    for name, (asks, answers) in DIRECTIONS.items():
        by_fold = {
            fold: [
                _measure(_matrix(read[fold, number][asks], members), _matrix(read[fold, number][answers], members))
                for number in seeds
            ]
            for fold, members in folds.items()
        }
        directions[name] = {
            key: {
                **_estimate(by_fold, key, seeds, sample).plain(confidence),
                "chance": float(np.mean([_chance(key, len(members)) for members in folds.values()])) if folds else None,
            }
            for key in (*(f"recall{k}" for k in RECALLS), "mean_rank")
        }
    return {
        "model": model.name,
        "method": model.method,
        "n": len(set().union(*folds.values())),
        "folds": [{"fold": fold, "n": len(members)} for fold, members in folds.items()],
        "directions": directions,
    }


def retrieval(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many others are nearer to each query than its own row of the gallery, and how many are as near.

    Parameters
    ----------
    query, gallery
        [N, D]; row i of both is of patient i. A row of zeros has no direction: its cosines are 0.

    Returns
    -------
    Two arrays [N] of counts.
    """
    query, gallery = _unit(query), _unit(gallery)
    cosine = query @ gallery.T
    ahead = cosine - np.diagonal(cosine)[:, None]
    return (ahead > TIED).sum(1), (np.abs(ahead) <= TIED).sum(1) - 1


def _measure(query: np.ndarray, gallery: np.ndarray) -> dict[str, np.ndarray]:
    """Metric key -> value of each query [N], its mean over the orders that ties can have."""
    nearer, tied = retrieval(query, gallery)
    recalls = {f"recall{k}": np.clip((k - nearer) / (tied + 1), 0.0, 1.0) for k in RECALLS}
    return {**recalls, "mean_rank": 1 + nearer + tied / 2}


def _estimate(by_fold: dict[int, list[dict[str, np.ndarray]]], key: str, seeds: list[int], sample: Sample) -> Estimate:
    if not by_fold:
        return Estimate()
    values = {fold: np.stack([own[key] for own in by_seed]) for fold, by_seed in by_fold.items()}  # [S, N]
    total = np.zeros(len(next(iter(sample.weights.values()))) - 1)
    for fold, value in values.items():
        total += weighted_mean(value.mean(0), sample.weights[fold][1:])
    return Estimate(
        folds={fold: float(value.mean()) for fold, value in values.items()},
        seeds={
            number: float(np.mean([value[row].mean() for value in values.values()])) for row, number in enumerate(seeds)
        },
        draws=total / len(values),
    )


def _chance(key: str, size: int) -> float:
    return (size + 1) / 2 if key == "mean_rank" else min(1.0, int(key.removeprefix("recall")) / size)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _matrix(rows: dict[str, np.ndarray], members: list[str]) -> np.ndarray:
    return np.stack([rows[patient] for patient in members])


def _read(path: Path, outcomes: Outcomes, fold: int) -> dict[str, dict[str, np.ndarray]]:
    """Modality -> test patient -> embedding [D]."""
    columns = ["patient_id", "split", "slide", "rna"]
    table = read_table(path, columns, mend=_MEND)
    found: dict[str, dict[str, np.ndarray]] = {"slide": {}, "rna": {}}
    for patient, split, slide, rna in zip(*(table[name] for name in columns), strict=True):
        if split not in ("train", "validation", "test"):
            continue
        if (split == "test") != outcomes.tests(fold, patient):
            own = describe_folds(outcomes.assignment.get(patient))
            raise HistillError(
                f"{path}: patient '{patient}' is in its {split} split but belongs to {own}; the file is of fold {fold}",
                mend=MEND_STALE,
            )
        if split != "test":
            continue
        if patient in found["slide"]:
            raise HistillError(f"{path}: patient '{patient}' is there twice", mend=_MEND)
        for name, value in (("slide", slide), ("rna", rna)):
            found[name][patient] = np.asarray(value, dtype=np.float64)
            if not np.isfinite(found[name][patient]).all():
                raise HistillError(
                    f"{path}: patient '{patient}': the {name} embedding is not finite",
                    mend="the pre-training did not converge: lower its learning rate, or use precision 32-true",
                )
    return found

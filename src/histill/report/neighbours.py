"""Which training cases lent their genes to test patients, and how far away they are. No training patient is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from histill.evaluation.predictions import Model
from histill.methods.extras import NEIGHBOURS
from histill.methods.train import runs
from histill.report.wording import number, plural
from histill.stages import predictors

MOST_PATIENTS = 10
MOST_LENDERS = 3


def neighbour_facts(task: str, config: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    """What the page says of the lenders of a task; one dict a model that borrows, of its first seed.

    Returns
    -------
    `model`; `n` test patients; `figure` of their abstention scores (`uri`, `alt`); `median`; `farthest`, how many have
    a score of 1; `lenders`, how many cases a patient borrows from (`median`, `low`, `high`); `hub`, the largest share
    of a fold's patients that borrow from one and the same case; `rows` of the patients with the highest scores:
    `patient`, `fold`, `abstention`, `similarity`, `lenders` [(code, weight)], heaviest first.
    """
    found = []
    if not (results / "cohort" / "folds.json").exists():
        return found
    for method in config["methods"]["run"]:
        for stage in predictors(method):
            model = Model(method, stage)
            paths = {
                fold: model.path(results, task, fold, seed).with_name(NEIGHBOURS)
                for fold, seed in runs(config, results)
                if seed == config["seeds"][0]
            }
            if all(path.exists() for path in paths.values()):
                rows = [row for fold, path in paths.items() for row in _read(path, fold)]
                found += [{"model": model.name, **_facts(rows)}] if rows else []
    return found


def _read(path: Path, fold: int) -> list[dict[str, Any]]:
    """Rows with `lenders` [(code, weight)], heaviest first, in the place of the cases themselves."""
    import pyarrow.parquet as pq

    found = []
    for row in pq.read_table(path).to_pylist():
        pairs = sorted(zip(row.pop("weight"), row.pop("case"), strict=True), reverse=True)
        lenders = [(code(case), weight) for weight, case in pairs if weight > 0]
        found.append({**row, "fold": fold, "lenders": lenders})
    return found


def _facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from histill.report import pretraining_figures

    scores = [row["abstention"] for row in rows]
    borrowed = [len(row["lenders"]) for row in rows]
    highest = sorted(rows, key=lambda row: (-row["abstention"], row["patient_id"]))[:MOST_PATIENTS]
    median, farthest = float(np.median(scores)), sum(score >= 1 for score in scores)
    said = f"median {number(median, 2)}, highest {number(max(scores), 2)}, {farthest} at 1"
    alt = f"Histogram of the abstention scores of {plural(len(rows), 'test patient')}: {said}."
    return {
        "n": len(rows),
        "figure": {"uri": pretraining_figures.abstention(scores), "alt": alt},
        "median": median,
        "farthest": farthest,
        "lenders": {"median": float(np.median(borrowed)), "low": min(borrowed), "high": max(borrowed)},
        "hub": _hub(rows),
        "rows": [
            {
                "patient": row["patient_id"],
                "fold": row["fold"],
                "abstention": row["abstention"],
                "similarity": row["similarity"],
                "lenders": row["lenders"][:MOST_LENDERS],
            }
            for row in highest
        ],
    }


def _hub(rows: list[dict[str, Any]]) -> float:
    patients = Counter(row["fold"] for row in rows)
    asked = Counter((row["fold"], lender) for row in rows for lender, _ in row["lenders"])
    return max((count / patients[fold] for (fold, _), count in asked.items()), default=0.0)


def code(case: int) -> str:
    """The first eight of the sixteen hexadecimal digits of a pseudonym."""
    return f"{case:016x}"[:8]

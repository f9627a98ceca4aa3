"""What the cohort is made of: patients, modalities, outcomes and folds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from histill.cohort.folds import EXTERNAL, OUTSIDE
from histill.cohort.tasks import Task
from histill.provenance import read_json


def cohort_facts(results: Path, tasks: dict[str, Any]) -> dict[str, Any] | None:
    """Counts for the cohort section from `cohort/patients.parquet`; None where the stage has not run.

    Parameters
    ----------
    tasks
        The config's `tasks`.
    """
    path = results / "cohort" / "patients.parquet"
    if not path.exists():
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(path).to_pydict()
    slide, rna = table["has_slide"], table["has_rna"]
    pairs = list(zip(slide, rna, strict=True))
    receipt = results / "receipts" / "cohort.json"
    return {
        "patients": len(pairs),
        "with_slide": sum(slide),
        "with_rna": sum(rna),
        "both": pairs.count((True, True)),
        "slide_only": pairs.count((True, False)),
        "rna_only": pairs.count((False, True)),
        "neither": pairs.count((False, False)),
        "several_slides": sum(count > 1 for count in table["n_slides"]),
        "sites": len({site for site in table["site"] if site is not None}),
        "folds": _folds(read_json(results / "cohort" / "folds.json")),
        "outcomes": [_outcome(name, options, table) for name, options in tasks.items()],
        "warnings": read_json(receipt).get("warnings", []) if receipt.exists() else [],
    }


def _folds(document: dict[str, Any]) -> dict[str, Any]:
    """Folds of one partition and their sizes over all repeats, and patients that none of them tests or trains on."""
    assignment = list(document["assignment"].values())
    repeats = document["repeats"]
    numbers = [fold for own in assignment for fold in own]
    sizes = [numbers.count(fold) for fold in range(document["n"])]
    return {
        "n": document["n"] // repeats,
        "repeats": repeats,
        "source": document["source"],
        "smallest": min(sizes, default=0),
        "largest": max(sizes, default=0),
        "outside": sum(OUTSIDE in own for own in assignment),
        "external": sum(EXTERNAL in own for own in assignment),
    }


def _outcome(name: str, options: dict[str, Any], table: dict[str, list]) -> dict[str, Any]:
    """Known outcomes of one task: over all patients, and among those with slide and RNA."""
    survival = options["type"] == "survival"
    values = table[f"time:{name}" if survival else f"label:{name}"]
    known = [value is not None for value in values]
    both = [slide and rna for slide, rna in zip(table["has_slide"], table["has_rna"], strict=True)]
    facts = {
        "task": name,
        "type": options["type"],
        "columns": list(Task.from_config(name, options).sources().values()),
        "known": sum(known),
        "known_both": sum(k and b for k, b in zip(known, both, strict=True)),
        "unlabelled": known.count(False),
    }
    if survival:
        events = [event for event in table[f"event:{name}"] if event is not None]
        times = [value for value in values if value is not None]
        facts |= {"events": sum(events), "median_time": statistics.median(times) if times else None}
    else:
        labels = [value for value in values if value is not None]
        facts["classes"] = [(label, labels.count(label)) for label in sorted(set(labels))]
    return facts

"""The expression table: what was taken for true of it, what became of its genes, and how its samples look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.provenance import read_json
from histill.report.wording import percent, plural
from histill.transcriptome.stage import SAMPLES

MOST_OUTLIERS = 20


def transcriptome_facts(results: Path) -> dict[str, Any] | None:
    """Facts of the section from the stage's receipt; None where it has not run."""
    path = results / "receipts" / "transcriptome.json"
    if not path.exists():
        return None
    receipt = read_json(path)
    info = receipt.get("info", {})
    shown = {key: value for key, value in info.items() if isinstance(value, str | int | float) and "digest" not in key}
    table = _samples(results) or {"sample": [], "outlier": []}
    outliers = [(name, why) for name, why in zip(table["sample"], table["outlier"], strict=True) if why]
    return {
        "counts": receipt.get("counts", {}),
        "info": shown,
        "findings": info.get("findings", {}),
        "coverage": receipt.get("coverage", {}),
        "warnings": receipt.get("warnings", []),
        "outliers": outliers[:MOST_OUTLIERS],
        "more_outliers": max(0, len(outliers) - MOST_OUTLIERS),
    }


def transcriptome_figure(config: dict[str, Any], results: Path) -> dict[str, str] | None:
    """The picture of the samples (`uri`, `alt`) and what `colours` them; None where the stage has not run."""
    table = _samples(results)
    if table is None:
        return None
    from histill.report import expression_figure
    from histill.report.figures import svg

    coverage = read_json(results / "receipts" / "transcriptome.json").get("coverage", {})
    name, groups = _groups(config, results, table["patient_id"])
    drawn = svg(expression_figure.draw(table, coverage, groups))
    return {"uri": drawn, "colours": name, "alt": _said(table, coverage)}


def _said(table: dict[str, list], coverage: dict[str, dict[str, dict[str, int]]]) -> str:
    """What the picture shows, in numbers."""
    apart = sum(bool(why) for why in table["outlier"])
    measured = [
        f"{plural(len(sets), f'{space} set')}, {percent(min(shares))} to {percent(max(shares))} of their genes measured"
        for space, sets in coverage.items()
        if (shares := [round(found["found"] / found["total"], 2) for found in sets.values()])
    ]
    return f"{plural(len(table['sample']), 'sample')}, of which {apart} stand apart; {'; '.join(measured)}."


def _samples(results: Path) -> dict[str, list] | None:
    path = results / SAMPLES
    if not path.exists():
        return None
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pydict()


def _groups(config: dict[str, Any], results: Path, patients: list[str]) -> tuple[str, list[str | None]]:
    """What colours the samples, the column of batches or else the site, and its value of each patient."""
    if config["transcriptome"]["transform"]["batch"]["column"]:
        from histill.data.expression_table import batch_labels

        known = batch_labels(results, config, patients)
        return config["transcriptome"]["transform"]["batch"]["column"], [known[patient] for patient in patients]
    path = results / "cohort" / "patients.parquet"
    if not path.exists():
        return "site", [None] * len(patients)
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["patient_id", "site"]).to_pydict()
    known = dict(zip(table["patient_id"], table["site"], strict=True))
    return "site", [known.get(patient) for patient in patients]

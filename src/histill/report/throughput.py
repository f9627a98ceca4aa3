"""How long the run took: seconds and rates of the slide stages, wall time and memory of Snakemake's jobs."""

from __future__ import annotations

import csv
import math
import re
import statistics
from pathlib import Path
from typing import Any

from histill.provenance import Receipt

_RUN = re.compile(r"-fold\d+-seed\d+$")
_VECTORS = ("10x", "20x", "slide")  # counts of a feature receipt that are vectors


def stage_times(receipts: dict[str, list[Receipt]]) -> list[dict[str, Any]]:
    """Seconds of the slide stages, as their receipts tell; `rate` is vectors a second of the feature stage, or None."""
    rows = []
    for stage, entries in receipts.items():
        timed = [receipt for receipt in entries if receipt.seconds > 0]
        seconds = [receipt.seconds for receipt in timed]
        if seconds:
            vectors = sum(int(receipt.counts.get(name, 0)) for receipt in timed for name in _VECTORS)
            rows.append(
                {
                    "stage": stage,
                    "slides": len(seconds),
                    "total": sum(seconds),
                    "median": statistics.median(seconds),
                    "slowest": max(seconds),
                    "rate": vectors / sum(seconds) if stage == "features" else None,
                }
            )
    return rows


def benchmarks(results: Path) -> list[dict[str, Any]]:
    """Jobs by rule from Snakemake's tables below `benchmarks/`: wall seconds and the largest memory in MiB."""
    folder = results / "benchmarks"
    jobs: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = _rule(path.relative_to(folder).with_suffix("").parts)
        if rule == "report":  # the last page's own time would make every page differ from the one before
            continue
        with open(path, newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                jobs.setdefault(rule, []).append((_number(row.get("s")), _number(row.get("max_rss"))))
    return [
        {
            "rule": rule,
            "jobs": len(rows),
            "total": sum(seconds for seconds, _ in rows if math.isfinite(seconds)),
            "memory": max((memory for _, memory in rows if math.isfinite(memory)), default=None),
        }
        for rule, rows in sorted(jobs.items())
    ]


def _rule(parts: tuple[str, ...]) -> str:
    """What to sum up: all batches of a slide stage; all folds and seeds of a training stage."""
    if parts[0] != "train":
        return parts[0]
    return " ".join((*parts[:-1], _RUN.sub("", parts[-1])))


def _number(text: str | None) -> float:
    """Snakemake writes NA and '-' for a job too short to be measured."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan

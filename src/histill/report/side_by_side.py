"""The benchmark of a task: all methods with the same folds, patients and budget, as `snakemake benchmark` left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.provenance import read_json
from histill.redact import redact
from histill.report.comparisons import comparison_facts
from histill.report.metric_table import metric_table


def benchmark_facts(task: str, results: Path) -> dict[str, Any] | None:
    """What the page says of the benchmark of a task; None where none was made.

    Returns
    -------
    `report` (`histill.evaluation.benchmark.run`), `table` (`metric_table`) and `comparisons` (`comparison_facts`).
    """
    path = results / "benchmark" / f"{task}.json"
    if not path.exists():
        return None
    report = redact(read_json(path))
    report["models"] = [{"name": row["name"], "inputs": row["reads"]} for row in report["rows"]]
    scored = {"models": {row["name"]: row["metrics"] for row in report["rows"]}}
    return {"report": report, "table": metric_table(report, scored), "comparisons": comparison_facts(report)}

"""How the run went and what it was made with: times, memory, versions, recipes, config."""

from __future__ import annotations

import csv
import math
import platform
import re
import statistics
from importlib import metadata
from pathlib import Path
from typing import Any

from histill import __version__
from histill.provenance import Receipt
from histill.report.redact import redact
from histill.stages import MODELS, PRETRAIN, STAGES, model_recipe, predictors, recipe

# Packages whose version can change a result.
_PACKAGES = (
    "snakemake", "openslide-python", "openslide-bin", "tiffslide", "opencv-python-headless", "shapely", "zarr",
    "anndata", "numpy", "pandas", "pyarrow", "torch", "timm", "lightning", "scikit-learn", "scikit-survival",
    "matplotlib",
)  # fmt: skip
_RUN = re.compile(r"-fold\d+-seed\d+$")


def stage_times(receipts: dict[str, list[Receipt]]) -> list[dict[str, Any]]:
    """Seconds of the slide stages, as their receipts tell."""
    rows = []
    for stage, entries in receipts.items():
        seconds = [receipt.seconds for receipt in entries if receipt.seconds > 0]
        if seconds:
            rows.append(
                {
                    "stage": stage,
                    "slides": len(seconds),
                    "total": sum(seconds),
                    "median": statistics.median(seconds),
                    "slowest": max(seconds),
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


def versions() -> list[tuple[str, str]]:
    """Versions of histill, Python and the packages in use; packages that are not installed are absent."""
    found = [("histill", __version__), ("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def recipes(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Recipe digest of every stage and model of the run."""
    shared = [name for name, stage in STAGES.items() if not any("{task}" in key for key in stage.keys)]
    rows = [(name, recipe(name, config)) for name in shared if "predict" not in STAGES[name].after]
    for method in config["methods"]["run"]:
        unlabelled = [stage for stage in MODELS[method] if stage not in predictors(method)]
        rows += [(f"{method} {stage}", model_recipe(method, stage, config, task=PRETRAIN)) for stage in unlabelled]
    for task in config["tasks"]:
        for method in config["methods"]["run"]:
            rows += [
                (f"{task}: {method} {stage}", model_recipe(method, stage, config, task=task))
                for stage in predictors(method)
            ]
        rows.append((f"{task}: evaluate", recipe("evaluate", config, task=task)))
    return rows


def config_text(config: dict[str, Any]) -> str:
    """The effective config as YAML, without machine paths."""
    import yaml

    return yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True)

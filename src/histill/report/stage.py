"""The report stage: gather what the stages left behind and write `report.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill import __version__
from histill.provenance import atomic_file, read_json
from histill.report import cohort, neighbours, pretraining, run_facts, slides, subspaces, transcriptome
from histill.report.few_shot import few_shot_facts
from histill.report.page import render
from histill.report.redact import redact
from histill.report.wording import verdict

_GROUPS = ("10x", "20x", "slide")  # of a feature store; other counts are no vectors
_HEADLINE = ("c_index", "auc")  # the metric the summary quotes, by task type


def run(*, config: dict[str, Any], results: Path) -> Path:
    """Write `report.html`, one self-contained page; parts whose stage has not run are left out with a sentence.

    Parameters
    ----------
    config
        Complete config (`histill.config.load`).
    results
        Results folder.

    Returns
    -------
    Path of the page. The same results give the same bytes: the page holds no time of its own making.
    """
    results = Path(results)
    page = render(collect(config, results))
    path = results / "report.html"
    with atomic_file(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def collect(config: dict[str, Any], results: Path) -> dict[str, Any]:
    """Everything the page shows, with absolute paths shortened."""
    receipts = slides.read_receipts(results)
    inspected = slides.slide_facts(results, receipts)
    pictures, pictured = slides.gallery(results, inspected, config["report"]["max_slides"])
    tasks = [_task(name, config, results) for name in config["tasks"]]
    reports = {task["name"]: task["report"] for task in tasks}
    lent = [(name, neighbours.neighbour_facts(name, config, results)) for name in config["tasks"]]
    mapped = [(name, subspaces.subspace_facts(name, config, results)) for name in config["tasks"]]
    facts = {
        "title": config["report"]["title"],
        "version": __version__,
        "demo": "demo" in config,
        "encoder": config["features"]["encoder"],
        "source": config["features"]["source"],
        "methods": config["methods"]["run"],
        "n_slides": len(next(iter(receipts.values()), ())),
        "states": slides.slide_states(receipts),
        "stages": [(stage, slides.slide_states({stage: entries})) for stage, entries in receipts.items()],
        "failures": slides.failures(receipts),
        "warnings": slides.warnings(receipts),
        "resolution": slides.resolution_table(inspected),
        "quality": slides.quality_counts(receipts.get("tiles", [])),
        "lights": slides.lights(receipts.get("tiles", [])),
        "tissue": slides.tissue_facts(receipts["tissue"]) if "tissue" in receipts else None,
        "pictured": pictured,
        "features": _features(receipts),
        "cohort": cohort.cohort_facts(results, config["tasks"]),
        "transcriptome": transcriptome.transcriptome_facts(results),
        "stage_times": run_facts.stage_times(receipts),
        "benchmarks": run_facts.benchmarks(results),
        "versions": run_facts.versions(),
        "recipes": run_facts.recipes(config),
        "config_text": run_facts.config_text(config),
    }
    # Pictures are left as they are: base64 text holds no path, and there is much of it.
    return {
        **redact(facts),
        "pictures": pictures,
        "legend": slides.legend() if pictures else None,
        "expression": transcriptome.transcriptome_figure(config, results),
        "tasks": tasks,
        "pretraining": pretraining.pretraining_facts(config, results, reports),
        "neighbours": [(task, found) for task, found in lent if found],
        "subspaces": [(task, found) for task, found in mapped if found],
    }


def _features(receipts: dict[str, list]) -> dict[str, Any] | None:
    """Vectors by group over all slides, and what made them."""
    found = [receipt for receipt in receipts.get("features", ()) if receipt.counts]
    if not found:
        return None
    names = [name for name in _GROUPS if any(name in receipt.counts for receipt in found)]
    return {
        "groups": [(name, sum(int(receipt.counts.get(name, 0)) for receipt in found)) for name in names],
        "unreadable": sum(int(receipt.counts.get("unreadable", 0)) for receipt in found),
        "dim": found[0].info.get("dim"),
    }


def _task(name: str, config: dict[str, Any], results: Path) -> dict[str, Any]:
    """A task's evaluation with its figures; `report` is None where the task has not been evaluated."""
    path = results / "evaluation" / f"{name}.json"
    facts: dict[str, Any] = {"name": name, "options": config["tasks"][name], "report": None}
    if not path.exists():
        return facts
    from histill.report import figures

    report = redact(read_json(path))
    by_key = {metric["key"]: metric for metric in report["metrics"]}
    for entry in report["comparisons"]:
        entry["verdict"] = verdict(entry, by_key[entry["metric"]])
    headline = next(metric for metric in report["metrics"] if metric["key"] in _HEADLINE)
    survival = report["type"] == "survival"
    return facts | {
        "report": report,
        "by_key": by_key,
        "headline": headline,
        "few_shot": few_shot_facts(report),
        "forest": figures.forest(report),
        "differences": figures.differences(report),
        "kaplan_meier": figures.kaplan_meier(report, report["columns"]["time"]) if survival else None,
        "roc": None if survival else figures.roc(report),
    }

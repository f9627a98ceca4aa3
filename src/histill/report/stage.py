"""The report stage: gather what the stages left behind and write `report.html`, and its figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill import __version__
from histill.provenance import atomic_file, file_digest, write_json
from histill.redact import redact
from histill.report import (
    audit,
    cohort,
    figure_files,
    neighbours,
    pretraining,
    reproduce,
    slides,
    subspaces,
    summary,
    throughput,
    transcriptome,
)
from histill.report.contents import contents
from histill.report.page import render
from histill.report.side_by_side import benchmark_facts
from histill.report.task import task_facts
from histill.software import sign, source_digest, versions
from histill.stages import SLIDE_STAGES, recipe

_STAGES = (*SLIDE_STAGES, "transcriptome", "cohort", "audit")  # whose receipts it reads


def run(*, config: dict[str, Any], results: Path) -> Path:
    """Write `report.html`, one self-contained page, and the figures of the tasks below `figures/`.

    Parts whose stage has not run are left out with a sentence.

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
    facts = collect(config, results)
    figure_files.write(facts["tasks"], results)
    page = render(facts)
    path = results / "report.html"
    with atomic_file(path) as part:
        part.write_text(page, encoding="utf-8")
    _write_receipt(config, results)
    return path


def _write_receipt(config: dict[str, Any], results: Path) -> None:
    """What the page and its figures were made of, and their digests."""
    read = [*(f"receipts/{name}.json" for name in _STAGES), *(f"evaluation/{task}.json" for task in config["tasks"])]
    figures = sorted((results / figure_files.FOLDER).rglob("*.svg"))
    written = ["report.html", *(path.relative_to(results).as_posix() for path in figures)]
    receipt = {
        "stage": "report",
        "recipe": recipe("report", config),
        "inputs": {name: file_digest(results / name) for name in read if (results / name).exists()},
        "outputs": {name: file_digest(results / name) for name in written},
    }
    write_json(results / "receipts" / "report.json", sign(results, receipt))


def collect(config: dict[str, Any], results: Path) -> dict[str, Any]:
    """Everything the page shows, with absolute paths shortened."""
    receipts = slides.read_receipts(results)
    slides.shorten_paths(receipts, config.get("cohort", {}).get("slides"))
    inspected = slides.slide_facts(results, receipts)
    facts = redact(_run_facts(config, results, receipts, inspected))
    # Pictures are left as they are: base64 text holds no path, and there is much of it.
    pictures, pictured = slides.gallery(results, inspected, config["report"]["max_slides"])
    tasks = [task_facts(name, config, results) for name in config["tasks"]]
    reports = {task["name"]: task["report"] for task in tasks}
    lent = [(name, neighbours.neighbour_facts(name, config, results)) for name in config["tasks"]]
    mapped = [(name, subspaces.subspace_facts(name, config, results)) for name in config["tasks"]]
    facts |= {
        "pictures": pictures,
        "pictured": pictured,
        "legend": slides.legend() if pictures else None,
        "expression": transcriptome.transcriptome_figure(config, results),
        "tasks": tasks,
        "side_by_side": [(name, made) for name in config["tasks"] if (made := benchmark_facts(name, results))],
        "pretraining": pretraining.pretraining_facts(config, results, reports),
        "neighbours": [(task, found) for task, found in lent if found],
        "subspaces": [(task, found) for task, found in mapped if found],
    }
    facts |= {
        "paragraphs": [summary.paragraph(task) for task in tasks],
        "cohort_line": summary.cohort_line(facts),
        "checks": summary.checks(facts),
    }
    return facts | {"contents": contents(facts)}


def _run_facts(config: dict[str, Any], results: Path, receipts: dict, inspected: dict) -> dict[str, Any]:
    """What needs neither a figure nor a picture."""
    found = audit.audit_facts(results)
    return {
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
        "features": slides.feature_facts(receipts),
        "cohort": cohort.cohort_facts(results, config["tasks"]),
        "transcriptome": transcriptome.transcriptome_facts(results),
        "stage_times": throughput.stage_times(receipts),
        "benchmarks": throughput.benchmarks(results),
        "audit": found,
        "audit_verdict": audit.verdict(found),
        "versions": versions(),
        "source_digest": source_digest(),
        "recipes": reproduce.recipes(config),
        "inputs": reproduce.inputs(results, receipts),
        "encoder_recipe": reproduce.encoder_recipe(config, results),
        "commands": reproduce.commands(config),
        "config_text": reproduce.config_text(config),
    }

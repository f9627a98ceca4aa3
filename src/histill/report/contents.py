"""The table of contents: what the page holds, in its order."""

from __future__ import annotations

from typing import Any

Entry = tuple[str, str, list[tuple[str, str]]]

# Parts of a task: name in `task_facts` (and end of the id), and title.
PARTS = (
    ("table", "Methods compared"),
    ("comparisons", "Differences and the value of distillation"),
    ("few_shot", "Few-shot probes"),
    ("curves", "Survival curves"),
    ("horizons", "Horizons"),
    ("calibration", "Calibration"),
    ("decisions", "Decision curves"),
    ("subgroups", "Subgroups"),
    ("external", "External cohorts"),
)


def contents(facts: dict[str, Any]) -> list[Entry]:
    """(id, title, [(id, title) of its parts]) of every section.

    Parameters
    ----------
    facts
        Of `histill.report.stage.collect`.
    """
    tasks = [(f"task-{task['name']}", f"Task: {task['name']}", parts(task)) for task in facts["tasks"]]
    entries: list[Entry | None] = [
        ("summary", "Summary", []),
        ("cohort", "Cohort", []),
        ("quality", "Slides and their quality", []),
        ("transcriptome", "Transcriptome", []),
        ("throughput", "Throughput", []),
        *(tasks or [("tasks", "Tasks", [])]),
        ("benchmark", "Benchmark", []) if facts["side_by_side"] else None,
        ("pretraining", "Pre-training", []) if facts["pretraining"] else None,
        ("heatmaps", "Heatmaps", []),
        ("lenders", "Who lent their genes", []) if facts["neighbours"] else None,
        ("failures", "Failures and warnings", []),
        ("provenance", "Provenance", []),
        ("audit", "Leakage audit", []),
    ]
    return [entry for entry in entries if entry]


def parts(task: dict[str, Any]) -> list[tuple[str, str]]:
    """(id, title) of the parts that a task has."""
    if task["report"] is None:
        return []
    titles = dict(PARTS) | {"curves": "Survival curves" if task["report"]["type"] == "survival" else "ROC curves"}
    return [(f"{name}-{task['name']}", title) for name, title in titles.items() if task[name]]

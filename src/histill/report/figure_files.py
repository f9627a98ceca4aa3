"""The figures of the tasks as files, for papers and slides: `figures/<task>/<part>.svg`, the same as on the page."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

from histill.provenance import atomic_file

FOLDER = "figures"
_NAMES = {"table": "metrics", "comparisons": "differences", "few_shot": "few-shot", "decisions": "decision-curves"}


def write(tasks: list[dict[str, Any]], results: Path) -> None:
    """Write the figures of the tasks; those of an earlier page are removed.

    Parameters
    ----------
    tasks
        Of `histill.report.task.task_facts`.
    """
    folder = results / FOLDER
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for task in tasks:
        for name, uri in figures(task).items():
            with atomic_file(folder / task["name"] / f"{name}.svg") as part:
                part.write_bytes(base64.b64decode(uri.partition(",")[2]))


def figures(task: dict[str, Any]) -> dict[str, str]:
    """Name -> data URI of every figure of a task."""
    found = {}
    for part in ("table", "comparisons", "few_shot", "horizons", "calibration", "decisions", "subgroups"):
        drawn = (task.get(part) or {}).get("figure")
        if drawn:
            found[_NAMES.get(part, part)] = drawn["uri"]
    if task.get("curves"):
        found["survival" if task["report"]["type"] == "survival" else "roc"] = task["curves"]["uri"]
    for place, cohort in enumerate(task.get("external") or ()):
        if cohort["table"]["figure"]:
            found[f"external-{place + 1}"] = cohort["table"]["figure"]["uri"]
    return found

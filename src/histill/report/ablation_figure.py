"""The picture of an ablation: what the full model and its variants reach, and what each variant loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histill.provenance import atomic_file
from histill.report.figures import BLACK, BLUE, STYLE, VERMILION

COLOURS = {"teacher": BLUE, "student": VERMILION}
_DPI = 150


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the forest plot of an ablation as PNG.

    For teacher and student a panel of the first metric and one of the differences (full model minus variant) with their
    intervals; small marks are single folds.

    Parameters
    ----------
    report
        Of `histill.evaluation.ablation.run`.
    """
    with mpl.rc_context(STYLE), atomic_file(path) as part:
        draw(report).savefig(part, format="png", dpi=_DPI, metadata={"Software": None})


def draw(report: dict[str, Any]) -> Figure:
    """The figure of `write`."""
    metric, rows = report["metrics"][0], report["rows"]
    figure = Figure(figsize=(11.5, 1.2 + 0.38 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2 * len(COLOURS), sharey=True)
    for (role, colour), place in zip(COLOURS.items(), (0, 2), strict=True):
        found = [row[role]["metrics"][metric["key"]] for row in rows]
        shared = [row[role]["shared"] for row in rows]
        _draw(panels[place], found, shared, colour)
        panels[place].set_title(f"{role.capitalize()}: {metric['name']}")
        lost = panels[place + 1]
        _draw(lost, [estimate["difference"] for estimate in found], shared, BLACK)
        lost.axvline(0.0, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        lost.set_title("full − variant")
    panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _draw(axes: Axes, estimates: list[dict[str, Any] | None], shared: list[bool], colour: str) -> None:
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for row, (estimate, same) in enumerate(zip(estimates, shared, strict=True)):
        if same:
            across = axes.get_yaxis_transform()
            axes.text(0.5, row, "as full", transform=across, color="#666666", fontsize=8, ha="center", va="center")
        elif estimate and estimate["value"] is not None:
            folds = [fold["value"] for fold in estimate["folds"] if fold["value"] is not None]
            axes.plot(folds, [row + 0.26] * len(folds), "|", color="#999999", markersize=5)
            if estimate["low"] is not None:
                ends = [estimate["low"], estimate["high"]]
                axes.plot(ends, [row, row], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(estimate["value"], row, "o", color=colour, markersize=6)

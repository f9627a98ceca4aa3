"""Figures of pre-trained models: monitors over epochs, few-shot probes, abstention scores."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histill.report.figures import BLACK, BLUE, GREEN, ORANGE, STYLE, VERMILION, model_style, svg
from histill.report.forests import drawn_metrics

_SERIES = (VERMILION, BLUE, GREEN, ORANGE)
_COLUMNS = 4
_BINS = np.linspace(0.0, 1.0, 21)

# Name, runs as (epochs [E], values [E]), and the limit below which it looks collapsed.
Series = tuple[str, list[tuple[list[int], list[float]]], float | None]


def curves(panels: list[tuple[str, list[Series]]]) -> str:
    """Small multiples over epochs: a panel a monitor, every run a thin line, the mean over runs a bold one.

    The mean goes as far as all runs do. Dashed: the limit below which a monitor looks collapsed.
    """
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.55 * columns, 0.3 + 1.85 * lines), layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (label, series) in zip(places, panels, strict=False):
            for (name, own, limit), colour in zip(series, _SERIES, strict=False):
                _draw_runs(axes, own, colour if len(series) > 1 else BLACK, name)
                if limit is not None:
                    axes.axhline(limit, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.set_title(label)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid(color="#e4e4e4", linewidth=0.6)
            axes.set_axisbelow(True)
            if len(series) > 1:
                axes.legend(frameon=False, fontsize=7, handlelength=1.2, borderaxespad=0.1)
        for axes in places[len(panels) :]:
            axes.remove()
        figure.supxlabel("Epoch", fontsize=9)
        return svg(figure)


def _draw_runs(axes: Axes, own: list[tuple[list[int], list[float]]], colour: str, name: str) -> None:
    if len(own) > 1:
        for epochs, values in own:
            axes.plot(epochs, values, color=colour, linewidth=0.6, alpha=0.45)
    shared = min(len(epochs) for epochs, _ in own)
    mean = np.mean([values[:shared] for _, values in own], axis=0)
    mark = "o" if shared == 1 else ""
    axes.plot(own[0][0][:shared], mean, color=colour, linewidth=2, marker=mark, markersize=4, label=name)


def few_shot(report: dict[str, Any]) -> str:
    """The main metrics over shots, with all training patients at the right end; a line a model, bars are intervals.

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`, with `few_shot`.
    """
    found = report["few_shot"]
    metrics = [m for m in drawn_metrics(report) if _has_values(found, m["key"])] or report["metrics"][:1]
    ticks = [*(str(shots) for shots in found["shots"]), "all"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.9 * len(metrics), 2.9), layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            for place, (name, entry) in enumerate(found["models"].items()):
                estimates = [own["metrics"][metric["key"]] for own in entry["shots"]] + [entry["full"][metric["key"]]]
                shift = 0.09 * (place - (len(found["models"]) - 1) / 2)
                _draw_shots(axes, estimates, shift, name)
            axes.set_title(metric["name"])
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.4, len(ticks) - 0.6)
            axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
            axes.set_axisbelow(True)
        group = "time bin" if report["type"] == "survival" else "class"
        figure.supxlabel(f"Training patients a {group}", fontsize=9)
        panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
        return svg(figure)


def _has_values(found: dict[str, Any], key: str) -> bool:
    return any(entry["full"][key]["value"] is not None for entry in found["models"].values())


def _draw_shots(axes: Axes, estimates: list[dict[str, Any]], shift: float, name: str) -> None:
    points = [(x + shift, e) for x, e in enumerate(estimates) if e["value"] is not None]
    style = model_style(name)
    axes.plot([x for x, _ in points], [e["value"] for _, e in points], **style, markersize=4.5, label=name)
    for x, estimate in points:
        if estimate["low"] is not None:
            axes.plot([x, x], [estimate["low"], estimate["high"]], color=style["color"], linewidth=1.2, alpha=0.7)


def abstention(scores: list[float]) -> str:
    """Histogram of abstention scores in [0, 1]."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 2.5), layout="constrained")
        axes = figure.subplots()
        axes.hist(scores, bins=_BINS, color=BLUE, edgecolor="white", linewidth=0.6)
        axes.set(xlim=(0, 1), xlabel="Abstention score", ylabel="Test patients")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        return svg(figure)

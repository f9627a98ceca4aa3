"""Kaplan-Meier curves of risk groups and ROC curves, each with the words that say what it shows."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from histill.report.figures import BLUE, REFERENCE, STYLE, VERMILION, defined, main_models, model_style, panels, svg
from histill.report.wording import number, p_value, plural

MOST_PANELS = 4
MOST_LINES = 6
_GROUPS = (("high", VERMILION, "-"), ("low", BLUE, (0, (5, 1.5))))


def kaplan_meier(report: dict[str, Any], unit: str) -> dict[str, str] | None:
    """Survival of patients of high and low predicted risk, a panel for each main model, with numbers at risk.

    Parameters
    ----------
    unit
        What the time axis counts: the name of the time column.

    Returns
    -------
    `uri` and `alt`; None where there are no curves.
    """
    curves = report["kaplan_meier"]["models"]
    names = main_models(curves, MOST_PANELS)
    if not names:
        return None
    with mpl.rc_context(STYLE):
        figure, places = panels(len(names), columns=2, width=4.3, height=3.5)
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)
        for axes, name in zip(places, names, strict=True):
            _draw_groups(axes, curves[name], unit)
            axes.set_title(f"{name}   {p_value(curves[name]['log_rank_p'])}")
        return {
            "uri": svg(figure),
            "alt": "Kaplan-Meier curves. " + " ".join(_said(name, curves[name]) for name in names),
        }


def _said(name: str, curves: dict[str, Any]) -> str:
    groups = [
        f"{group} risk {plural(curves['groups'][group]['n'], 'patient')}, "
        f"{plural(curves['groups'][group]['events'], 'event')}, "
        f"{number(curves['groups'][group]['survival'][-1], 2)} event-free at the end"
        for group, _, _ in _GROUPS
        if group in curves["groups"]
    ]
    return f"{name}: {'; '.join(groups)}; {p_value(curves['log_rank_p'])}."


def _draw_groups(axes: Axes, curves: dict[str, Any], unit: str) -> None:
    last = max(group["time"][-1] for group in curves["groups"].values())
    ticks = [tick for tick in MaxNLocator(5).tick_values(0, last) if 0 <= tick <= last]
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    axes.set_ylim(0, 1.04)
    axes.set_xticks(ticks)
    axes.set_ylabel("Event-free")
    for line, (name, colour, dashes) in enumerate(_GROUPS):
        if name not in curves["groups"]:
            continue
        group = curves["groups"][name]
        label = f"{name} risk: {group['n']} patients, {group['events']} events"
        style = {"color": colour, "linewidth": 1.8, "linestyle": dashes, "label": label}
        axes.step(group["time"], group["survival"], where="post", **style)
        low, high = (defined(group[side]) for side in ("low", "high"))
        axes.fill_between(group["time"], low, high, step="post", color=colour, alpha=0.13, linewidth=0)
        for tick in ticks:
            at = offset_copy(axes.get_xaxis_transform(), axes.figure, y=-24 - 11 * line, units="points")
            count = str(_at_risk(group, tick))
            axes.text(tick, 0, count, transform=at, color=colour, fontsize=7.5, ha="center", va="center")
    axes.set_xlabel(f"{unit} (numbers at risk above)", labelpad=27)
    axes.legend(frameon=False, fontsize=7.5, loc="upper right")


def _at_risk(group: dict[str, Any], time: float) -> int:
    """Patients under observation at `time`: those of the first step not before it."""
    index = int(np.searchsorted(group["time"], time, side="left"))
    return group["at_risk"][index] if index < len(group["at_risk"]) else 0


def roc(report: dict[str, Any]) -> dict[str, str] | None:
    """ROC curves of the main models, averaged over folds and seeds, as `uri` and `alt`; None where there are none."""
    grid, curves = report["roc"]["false_positive_rate"], report["roc"]["true_positive_rate"]
    names = main_models(curves, MOST_LINES)
    if not names:
        return None
    areas = {name: report["paired"]["models"][name]["auc"]["value"] for name in names}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], **REFERENCE)
        for place, name in enumerate(names):
            label = f"{name} ({number(areas[name], 2)})"
            marks = {"markevery": (3 + place, 9), "markersize": 5}  # so that marks of two curves lie apart
            axes.plot(grid, curves[name], **model_style(name), **marks, linewidth=1.6, label=label)
        axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="False-positive rate", ylabel="True-positive rate")
        axes.set_aspect("equal")
        axes.legend(frameon=False, fontsize=8, title="Model (AUC)", loc="center left", bbox_to_anchor=(1.02, 0.5))
        said = "; ".join(f"{name} {number(area)}" for name, area in areas.items())
        return {"uri": svg(figure), "alt": f"ROC curves. Areas below them: {said}."}

"""Figures as SVG data URIs: forests of metrics and differences, Kaplan-Meier curves, ROC curves.

Text is drawn as paths, so that a figure looks alike everywhere and needs no font; hashes are salted and dates left out,
so that the same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from histill.report.wording import p_value

# Okabe & Ito: told apart with any colour vision, and by lightness in grey print.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#222222",
)  # fmt: skip
MODEL_COLOURS = {
    "disentangled student": VERMILION,
    "disentangled teacher": BLUE,
    "wsi-only": BLACK,
    "abmil": GREEN,
    "linear-slide": ORANGE,
    "linear-rna": PURPLE,
    "linear-both": SKY,
    "mirror student": VERMILION,
    "mirror fused": BLUE,
    "mirror slide": GREEN,
    "mirror rna": PURPLE,
    "msrl student": VERMILION,
    "msrl both": BLUE,
    "msrl slide": GREEN,
}
# Models of methods that have several share colours by what they read, and differ in their lines.
METHOD_LINES = {"disentangled": "-", "mirror": (0, (5, 1.5)), "msrl": (0, (1.5, 1))}
OTHER_LINE = (0, (6, 1.5, 1, 1.5))
MAIN_MODELS = (
    *("disentangled student", "mirror student", "msrl student"),
    *("disentangled teacher", "wsi-only", "linear-slide", "abmil", "linear-rna"),
)
MOST_PANELS = 4
STYLE = {
    "svg.hashsalt": "histill",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def forest(report: dict[str, Any]) -> str | None:
    """Metrics of the models on the patients all of them predicted: point, interval, and a small mark for each fold."""
    models = report["paired"]["models"]
    rows = [
        (name, [models[name][metric["key"]] for metric in report["metrics"]], MODEL_COLOURS.get(name, BLACK))
        for name in (model["name"] for model in report["models"])
        if name in models
    ]
    references = {"c_index": 0.5, "auc": 0.5, "balanced_accuracy": 1 / max(2, len(report["classes"]))}
    return _forest(rows, report["metrics"], references)


def differences(report: dict[str, Any]) -> str | None:
    """Paired differences with their intervals around zero, one panel a metric."""
    found: dict[str, dict[str, Any]] = {}
    for entry in report["comparisons"]:
        found.setdefault(f"{entry['a']}\n− {entry['b']}", {})[entry["metric"]] = entry
    rows = [(label, [by[metric["key"]] for metric in report["metrics"]], BLACK) for label, by in found.items()]
    metrics = [{**metric, "name": f"{metric['name']}, difference"} for metric in report["metrics"]]
    return _forest(rows, metrics, dict.fromkeys((metric["key"] for metric in metrics), 0.0))


def _forest(rows: list, metrics: list[dict[str, Any]], references: dict[str, float]) -> str | None:
    if not any(estimate["value"] is not None for _, estimates, _ in rows for estimate in estimates):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 + 2.6 * max(2, len(metrics)), 0.8 + 0.36 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for column, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
            for row, (_, estimates, colour) in enumerate(rows):
                _draw_estimate(axes, row, estimates[column], colour)
            if metric["key"] in references:
                axes.axvline(references[metric["key"]], color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.set_title(metric["name"])
            axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        return svg(figure)


def _draw_estimate(axes, row: int, estimate: dict[str, Any], colour: str) -> None:
    folds = [fold["value"] for fold in estimate["folds"] if fold["value"] is not None]
    axes.plot(folds, [row + 0.24] * len(folds), "|", color="#999999", markersize=5)
    if estimate["low"] is not None:
        axes.plot([estimate["low"], estimate["high"]], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
    if estimate["value"] is not None:
        axes.plot(estimate["value"], row, "o", color=colour, markersize=6)


def kaplan_meier(report: dict[str, Any], unit: str) -> str | None:
    """Survival of patients of high and low predicted risk: a panel for each main model, with numbers at risk."""
    curves = report["kaplan_meier"]["models"]
    names = [name for name in (*MAIN_MODELS, *curves) if name in curves]
    names = list(dict.fromkeys(names))[:MOST_PANELS]
    if not names:
        return None
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.3 * columns, 3.5 * lines), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, name in zip(panels, names, strict=False):
            _draw_groups(axes, curves[name], unit)
            axes.set_title(f"{name}   {p_value(curves[name]['log_rank_p'])}")
        for axes in panels[len(names) :]:
            axes.remove()
        return svg(figure)


def _draw_groups(axes, curves: dict[str, Any], unit: str) -> None:
    last = max(group["time"][-1] for group in curves["groups"].values())
    ticks = [tick for tick in MaxNLocator(5).tick_values(0, last) if 0 <= tick <= last]
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    axes.set_ylim(0, 1.04)
    axes.set_xticks(ticks)
    axes.set_ylabel("Event-free")
    for line, (name, colour) in enumerate((("high", VERMILION), ("low", BLUE))):
        if name not in curves["groups"]:
            continue
        group = curves["groups"][name]
        axes.step(
            group["time"],
            group["survival"],
            where="post",
            color=colour,
            linewidth=1.8,
            linestyle="-" if name == "high" else (0, (5, 1.5)),
            label=f"{name} risk: {group['n']} patients, {group['events']} events",
        )
        low, high = (np.array([np.nan if v is None else v for v in group[side]]) for side in ("low", "high"))
        axes.fill_between(group["time"], low, high, step="post", color=colour, alpha=0.13, linewidth=0)
        counts = [_at_risk(group, tick) for tick in ticks]
        for tick, count in zip(ticks, counts, strict=True):
            at = offset_copy(axes.get_xaxis_transform(), axes.figure, y=-24 - 11 * line, units="points")
            axes.text(tick, 0, str(count), transform=at, color=colour, fontsize=7.5, ha="center", va="center")
    axes.set_xlabel(f"{unit} (numbers at risk above)", labelpad=27)
    axes.legend(frameon=False, fontsize=7.5, loc="upper right")


def _at_risk(group: dict[str, Any], time: float) -> int:
    """Patients under observation at `time`: those of the first step not before it."""
    index = int(np.searchsorted(group["time"], time, side="left"))
    return group["at_risk"][index] if index < len(group["at_risk"]) else 0


def roc(report: dict[str, Any]) -> str | None:
    """ROC curves of the main models, averaged over folds and seeds."""
    grid, curves = report["roc"]["false_positive_rate"], report["roc"]["true_positive_rate"]
    if not curves:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.9, linestyle=(0, (4, 3)))
        for name, rates in curves.items():
            value = report["paired"]["models"][name]["auc"]["value"]
            style = METHOD_LINES.get(name.split()[0], OTHER_LINE)
            label = f"{name} ({value:.2f})" if value is not None else name
            axes.plot(grid, rates, color=MODEL_COLOURS.get(name, BLACK), linewidth=1.8, linestyle=style, label=label)
        axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="False-positive rate", ylabel="True-positive rate")
        axes.set_aspect("equal")
        axes.legend(frameon=False, fontsize=8, title="Model (AUC)", loc="center left", bbox_to_anchor=(1.02, 0.5))
        return svg(figure)


def svg(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()

"""The benchmark as one picture: a forest of all models by what they read, and the value of distillation below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from histill.provenance import atomic_file

# Okabe & Ito: told apart with any colour vision; groups stand apart and are named, so colour says nothing alone.
COLOURS = {"slide": "#0072B2", "rna": "#D55E00", "slide+rna": "#009E73"}
INK, GREY, PALE = "#222222", "#6b6b6b", "#e4e4e4"
HEADINGS = {"slide": "Slide alone", "rna": "RNA alone", "slide+rna": "Slide and RNA"}
PANELS = ("c_index", "td_auc", "ibs", "auc", "balanced_accuracy", "brier")  # of the metrics; the table has them all
DPI = 130
_STYLE = {
    "text.parse_math": False,  # as of the report's figures
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_CHANCE = {"c_index": 0.5, "uno_c": 0.5, "td_auc": 0.5, "auc": 0.5}
_PANEL, _LABELS, _ROW = 3.2, 2.4, 0.27  # inches


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the figure of a benchmark (`histill.evaluation.benchmark.run`) as PNG; the same numbers, the same bytes."""
    with mpl.rc_context(_STYLE), atomic_file(path) as part:
        draw(report).savefig(part, format="png", dpi=DPI, metadata={"Software": None})


def draw(report: dict[str, Any]) -> Figure:
    """The figure of `write`: a column of panels for each of three metrics."""
    metrics = [metric for metric in report["metrics"] if metric["key"] in PANELS]
    places = _places(report["rows"])
    bottom = max(places.values()) + 1
    heights = [bottom * _ROW + 0.3, 2.2 * _ROW]
    size = (_LABELS + _PANEL * max(2, len(metrics)), sum(heights) + 1.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    figure.suptitle(_title(report), x=0.01, ha="left", fontsize=12, fontweight="bold")
    grid = figure.subplots(2, len(metrics), sharey="row", squeeze=False, height_ratios=heights)
    for column, metric in enumerate(metrics):
        _forest(grid[0, column], report, metric, places)
        _difference(grid[1, column], report["distillation"], metric)
    upper, lower = grid[0, 0], grid[1, 0]
    upper.set_ylim(bottom - 0.3, -0.7)
    labels = [f"{row['name']} ◆" if row["student"] else row["name"] for row in report["rows"]]
    upper.set_yticks([places[row["name"]] for row in report["rows"]], labels)
    for group, place in _headings(report["rows"], places).items():
        upper.text(
            -0.02,
            place,
            HEADINGS[group],
            transform=upper.get_yaxis_transform(),
            ha="right",
            va="center",
            fontweight="bold",
        )
    lower.set_ylim(0.8, -0.8)
    told = report["distillation"]
    lower.set_yticks([0], [f"Value of distillation\n{told['a']}\n− {told['b']}" if told else "Value of distillation"])
    columns = 5 if len(metrics) > 2 else 3
    figure.legend(handles=_legend(report), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _title(report: dict[str, Any]) -> str:
    patients = report["patients"]
    events = f", {patients['events']} events" if "events" in patients else ""
    return f"{report['task']}: {patients['n']} test patients{events}, the same for all models"


def _places(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Model -> height of its row; above the first of a group one is left for its heading."""
    places, place, group = {}, -1.0, None
    for row in rows:
        place += 1.0 if row["reads"] == group else 2.0 if group is None else 2.4
        places[row["name"]], group = place, row["reads"]
    return places


def _headings(rows: list[dict[str, Any]], places: dict[str, float]) -> dict[str, float]:
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["reads"], places[row["name"]] - 1.0)
    return first


def _forest(axes: Axes, report: dict[str, Any], metric: dict[str, Any], places: dict[str, float]) -> None:
    _plain(axes)
    note = {True: "", False: "\n(lower is better)", None: "\n(1 is best)"}[metric["higher_is_better"]]
    axes.set_title(metric["name"] + note)
    chance = 1 / max(2, len(report["classes"])) if metric["key"] == "balanced_accuracy" else _CHANCE.get(metric["key"])
    if chance is not None:
        axes.axvline(chance, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for row in report["rows"]:
        marker = "D" if row["student"] else "o"
        _mark(axes, row["metrics"][metric["key"]], places[row["name"]], COLOURS[row["reads"]], marker)


def _difference(axes: Axes, found: dict[str, Any] | None, metric: dict[str, Any]) -> None:
    _plain(axes)
    axes.axvline(0.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if found is None or metric["key"] not in found["metrics"]:
        axes.text(0.5, 0.5, "not in this benchmark", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_xticks([])
        return
    estimate = found["metrics"][metric["key"]]
    _mark(axes, estimate, 0.0, INK, "s")
    reached = [estimate[name] for name in ("value", "low", "high")] + [fold["value"] for fold in estimate["folds"]]
    reach = 1.15 * max([0.01, *(abs(value) for value in reached if value is not None)])
    axes.set_xlim(-reach, reach)


def _mark(axes: Axes, estimate: dict[str, Any], place: float, colour: str, marker: str) -> None:
    """Value, interval, and a small mark for each fold."""
    if estimate["value"] is None:
        axes.text(0.5, place, "not defined", transform=axes.get_yaxis_transform(), color=GREY, ha="center", va="center")
        return
    folds = [fold["value"] for fold in estimate["folds"] if fold["value"] is not None]
    axes.plot(folds, [place + 0.3] * len(folds), "|", color="#8a8a8a", markersize=4.5, zorder=2)
    if estimate["low"] is not None:
        ends = [estimate["low"], estimate["high"]]
        axes.plot(ends, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
    axes.plot(estimate["value"], place, marker, color=colour, markersize=6.5, markeredgecolor="white", zorder=4)


def _plain(axes: Axes) -> None:
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _legend(report: dict[str, Any]) -> list[Line2D]:
    known = {"color": INK, "linestyle": "", "markersize": 6.5}
    confidence = f"{100 * report['confidence']:g} % interval"
    found = [Line2D([], [], marker="o", label="model", **known)]
    if any(row["student"] for row in report["rows"]):
        found.append(Line2D([], [], marker="D", label="student: learned from RNA, reads slides", **known))
    found.append(Line2D([], [], color=INK, linewidth=2.2, label=confidence))
    found.append(Line2D([], [], marker="|", color="#8a8a8a", linestyle="", markersize=6, label="one fold"))
    dashed = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
    return [*found, Line2D([], [], label="chance; below: no difference", **dashed)]

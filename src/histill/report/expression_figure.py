"""The picture of an expression table: sizes of libraries, principal components, scores, and what sets are measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histill.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from histill.subspaces import SUBSPACES

GROUP_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)  # of the largest batches or sites
OTHERS = "#9a9a9a"
MANY = 2000  # points; more are drawn as an image
LOW_COVERAGE = 0.5


def draw(table: dict[str, list], coverage: dict[str, dict[str, dict[str, int]]], groups: list[str | None]) -> Figure:
    """Panels of the samples above, of the gene sets below.

    Parameters
    ----------
    table
        Of `transcriptome/samples.parquet`: column -> one value a sample.
    coverage
        Subspace -> set -> `found`, `total`.
    groups
        Batch or site of each sample.
    """
    marked = np.array([bool(reason) for reason in table["outlier"]])
    colours, legend = _colours(groups)
    above = ["size"] * (table["detected_genes"][0] is not None) + ["pca", "scores"]
    lines = max((len(sets) for sets in coverage.values()), default=0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.4 + 0.24 * lines), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[3.4, max(0.5, 0.24 * lines)])
        panels = dict(zip(above, upper.subplots(1, len(above), squeeze=False)[0], strict=True))
        points = {"colours": colours, "marked": marked}
        if "size" in panels:
            _draw_sizes(panels["size"], table, **points)
        _scatter(panels["pca"], table["pc1"], table["pc2"], **points)
        panels["pca"].set(title="Principal components", xlabel="PC 1", ylabel="PC 2")
        _scatter(panels["scores"], table["tumor:mean_z"], table["microenvironment:mean_z"], **points)
        panels["scores"].set(title="Scores (mean z)", xlabel="tumour sets", ylabel="microenvironment sets")
        if legend:
            handles = [mpl.lines.Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in legend.items()]
            upper.legend(handles=handles, frameon=False, fontsize=8, ncols=len(handles), loc="outside lower center")
        for axes, space in zip(lower.subplots(1, len(SUBSPACES)), SUBSPACES, strict=True):
            _draw_coverage(axes, space, coverage.get(space, {}))
        return figure


def _colours(groups: list[str | None]) -> tuple[list[str], dict[str, str]]:
    """Colour of each sample, and group -> colour; one group alone needs no legend."""
    sizes = Counter(group for group in groups if group)
    if len(sizes) < 2:
        return [BLUE] * len(groups), {}
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))[: len(GROUP_COLOURS)]
    legend = dict(zip(largest, GROUP_COLOURS, strict=False))
    colours = [legend.get(group, OTHERS) for group in groups]
    if OTHERS in colours:
        legend["others"] = OTHERS
    return colours, legend


def _scatter(axes: Axes, x: list, y: list, *, colours: list[str], marked: np.ndarray) -> None:
    x, y = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    axes.scatter(x, y, s=14, c=colours, linewidths=0, alpha=0.8, rasterized=len(x) > MANY)
    axes.scatter(x[marked], y[marked], s=70, facecolors="none", edgecolors=BLACK, linewidths=1.1)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_sizes(axes: Axes, table: dict[str, list], *, colours: list[str], marked: np.ndarray) -> None:
    """Detected genes against library size, or by rank where the table holds no counts."""
    detected = table["detected_genes"]
    if table["library_size"][0] is not None:
        millions = [size / 1e6 for size in table["library_size"]]
        _scatter(axes, millions, detected, colours=colours, marked=marked)
        axes.set(title="Library size and genes", xlabel="million reads", ylabel="detected genes")
        if max(millions) > 20 * min(millions):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # by default a formula, and figures hold none
            axes.xaxis.set_minor_formatter("")
        return
    rank = np.argsort(np.argsort(detected, kind="stable"), kind="stable")
    _scatter(axes, rank.tolist(), detected, colours=colours, marked=marked)
    axes.set(title="Detected genes", xlabel="samples, sorted", ylabel="detected genes")


def _draw_coverage(axes: Axes, space: str, sets: dict[str, dict[str, Any]]) -> None:
    names = list(sets)
    shares = [100 * count["found"] / count["total"] for count in sets.values()]
    low = [share < 100 * LOW_COVERAGE for share in shares]
    axes.barh(range(len(names)), shares, color=[VERMILION if thin else BLUE for thin in low], height=0.7)
    axes.axvline(100 * LOW_COVERAGE, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="% of the genes measured")
    axes.set_title(f"{'Tumour' if space == 'tumor' else space.capitalize()} sets")

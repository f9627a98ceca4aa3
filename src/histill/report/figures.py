"""What all figures of the page share: colours, styles of models, SVG data URIs.

Text is drawn as paths, so that a figure looks alike everywhere and needs no font; hashes are salted and dates left out,
so that the same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito: told apart with any colour vision, and by lightness in grey print.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#222222",
)  # fmt: skip
GREY = "#777777"
REFERENCE = {"color": "#888888", "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 0}
STYLE = {
    "svg.hashsalt": "histill",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a dollar sign in the name of a class is no formula
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
# A model is told by colour, line and mark: methods share colours by what they read, and differ in their lines.
_LINES = {"disentangled": "-", "mirror": (0, (5, 1.5)), "msrl": (0, (1.5, 1))}
_ROLES = {
    "student": (VERMILION, "o"),
    "teacher": (BLUE, "s"),
    "fused": (BLUE, "s"),
    "both": (BLUE, "s"),
    "slide": (GREEN, "^"),
    "rna": (PURPLE, "v"),
}
_BASELINES = {
    "wsi-only": (BLACK, (0, (6, 1.5, 1, 1.5)), "D"),
    "abmil": (GREEN, (0, (3, 1)), "P"),
    "transmil": (SKY, (0, (8, 2)), "X"),
    "meanpool": (GREY, (0, (1, 1)), "h"),
    "retrieval": (GREY, (0, (4, 1, 1, 1)), "*"),
    "linear-slide": (ORANGE, (0, (2, 1)), "<"),
    "linear-rna": (PURPLE, (0, (2, 1)), "v"),
    "linear-both": (SKY, (0, (2, 1)), ">"),
    "snn": (PURPLE, (0, (8, 2)), "d"),
    "mcat": (BLUE, (0, (8, 2)), "p"),
}
_OTHER = (GREY, (0, (1, 2)), ".")
# What curves are drawn of, where there is room for a few models only.
MAIN_MODELS = (
    *("disentangled student", "mirror student", "msrl student"),
    *("wsi-only", "disentangled teacher", "linear-slide", "abmil", "linear-rna"),
)


def model_style(name: str) -> dict[str, Any]:
    """`color`, `linestyle` and `marker` of a model, as keywords of `Axes.plot`."""
    method, _, role = name.partition(" ")
    if role in _ROLES:
        colour, mark = _ROLES[role]
        line = _LINES.get(method, _OTHER[1])
    else:
        colour, line, mark = _BASELINES.get(name, _OTHER)
    return {"color": colour, "linestyle": line, "marker": mark}


def main_models(names: list[str] | dict[str, Any], most: int) -> list[str]:
    """Up to `most` of the names, the main models first."""
    ordered = [name for name in MAIN_MODELS if name in names] + [name for name in names if name not in MAIN_MODELS]
    return ordered[:most]


def finish(axes: Axes, *, grid: str = "both") -> None:
    """The faint grid that all panels have."""
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def panels(count: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of so many inches, in rows of at most `columns`."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in places[count:]:
        axes.remove()
    return figure, places[:count]


def defined(values: list[float | None]) -> np.ndarray:
    """Values with NaN where there is none, as matplotlib leaves such points out."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def svg(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()

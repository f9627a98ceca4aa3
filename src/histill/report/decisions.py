"""Decision curves: what acting on a model is worth at a threshold, against treating all and treating none."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from histill.report.figures import BLACK, STYLE, defined, finish, main_models, model_style, panels, svg
from histill.report.wording import number

MOST_PANELS = 4
MOST_LINES = 4
_SHOWN = (0.1, 0.2, 0.3, 0.5, 0.7)  # thresholds of the table, or the nearest there are


def decision_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the decision curves of a task; None where there are none.

    Returns
    -------
    `note`; `of`, each with `of`, `thresholds` (the few that are shown), `rows` [(name, net benefits)]; `figure`, `uri`
    and `alt`.
    """
    found = report.get("decision_curves")
    curves = [entry for entry in found["of"] if entry["thresholds"] and entry["models"]] if found else []
    if not curves:
        return None
    return {"note": found["note"], "of": [_table(entry) for entry in curves], "figure": _figure(curves[:MOST_PANELS])}


def _table(entry: dict[str, Any]) -> dict[str, Any]:
    shown = _nearest(entry["thresholds"])
    rows = [(name, [values[place] for place in shown]) for name, values in entry["models"].items()]
    everyone = ("everybody treated", [entry["all"][place] for place in shown])
    return {"of": entry["of"], "thresholds": [entry["thresholds"][place] for place in shown], "rows": [*rows, everyone]}


def _nearest(thresholds: list[float]) -> list[int]:
    """Places of the thresholds that are shown."""
    return np.unique([np.argmin(np.abs(np.subtract(thresholds, one))) for one in _SHOWN]).tolist()


def _figure(curves: list[dict[str, Any]]) -> dict[str, str]:
    with mpl.rc_context(STYLE):
        figure, places = panels(len(curves), columns=2, width=4.5, height=3.2)
        for axes, entry in zip(places, curves, strict=True):
            _draw(axes, entry)
        handles = places[0].get_legend_handles_labels()
        figure.legend(*handles, frameon=False, fontsize=8, loc="outside lower center", ncols=1 + min(2, len(curves)))
        return {
            "uri": svg(figure),
            "alt": "Net benefit over the threshold probability. " + " ".join(map(_said, curves)),
        }


def _draw(axes: Axes, entry: dict[str, Any]) -> None:
    thresholds = entry["thresholds"]
    everyone = defined(entry["all"])
    axes.plot(thresholds, everyone, color=BLACK, linewidth=1, label="everybody treated")
    axes.axhline(0, color=BLACK, linewidth=1, linestyle=(0, (1, 2)), label="nobody treated")
    top = [np.nanmax(everyone, initial=0.0)]
    for place, name in enumerate(main_models(entry["models"], MOST_LINES)):
        values = defined(entry["models"][name])
        marks = {"markevery": (place, max(1, len(thresholds) // 6)), "markersize": 4.5}
        axes.plot(thresholds, values, **model_style(name), **marks, linewidth=1.5, label=name)
        top.append(np.nanmax(values, initial=0.0))
    # Far below zero there is nothing to decide, and "all" falls without bound.
    axes.set_ylim(-0.25 * max(top) - 0.01, 1.1 * max(top) + 0.01)
    axes.set(xlabel="Threshold probability", ylabel="Net benefit", title=entry["of"])
    finish(axes)


def _said(entry: dict[str, Any]) -> str:
    middle = len(entry["thresholds"]) // 2
    values = {**{name: entry["models"][name] for name in main_models(entry["models"], MOST_LINES)}, "all": entry["all"]}
    said = ", ".join(f"{name} {number(found[middle])}" for name, found in values.items())
    return f"{entry['of']}, at a threshold of {entry['thresholds'][middle]:g}: {said}."

"""How well risks tell who has an event before a horizon: AUC and Brier score at single times."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from histill.report.figures import REFERENCE, STYLE, defined, finish, main_models, model_style, panels, svg
from histill.report.wording import estimate, inputs

MOST_LINES = 4
_MEASURES = (("auc", "AUC"), ("brier", "Brier score (less is better)"))


def horizon_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the horizons of a survival task; None where nothing was scored at one.

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`.

    Returns
    -------
    `times`; `unit`; `note`; `measures`, [(name, [(model, what it needs, estimates, one a time)])]; `figure` (`uri`,
    `alt`).
    """
    found = report.get("horizons")
    if not found or not found["times"] or not found["models"]:
        return None
    needs = {model["name"]: inputs(model["inputs"]) for model in report["models"]}
    measures = [
        (label, [(name, needs.get(name, ""), [entry[key] for entry in own]) for name, own in found["models"].items()])
        for key, label in _MEASURES
    ]
    return {
        "times": found["times"],
        "unit": found["unit"],
        "note": found["note"],
        "measures": measures,
        "figure": _figure(found),
    }


def _figure(found: dict[str, Any]) -> dict[str, str]:
    names = main_models(found["models"], MOST_LINES)
    with mpl.rc_context(STYLE):
        figure, places = panels(len(_MEASURES), columns=2, width=4.4, height=3.1)
        for axes, (key, label) in zip(places, _MEASURES, strict=True):
            for place, name in enumerate(names):
                _draw(axes, found["models"][name], key, name, place - (len(names) - 1) / 2)
            axes.set_title(label)
            axes.set_xlabel(found["unit"])
            axes.set_xticks(found["times"])
            finish(axes, grid="y")
        places[0].axhline(0.5, **REFERENCE)
        figure.legend(
            *places[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=4
        )
        said = "; ".join(
            f"{name} " + ", ".join(f"{estimate(entry['auc'])} at {entry['time']:g}" for entry in found["models"][name])
            for name in names
        )
        return {"uri": svg(figure), "alt": f"AUC and Brier score by horizon ({found['unit']}). AUC: {said}."}


def _draw(axes: Axes, own: list[dict[str, Any]], key: str, name: str, place: float) -> None:
    span = max(entry["time"] for entry in own) - min(entry["time"] for entry in own)
    times = [entry["time"] + 0.018 * place * span for entry in own]
    style = model_style(name)
    values, low, high = (
        defined([entry[key] and entry[key][side] for entry in own]) for side in ("value", "low", "high")
    )
    axes.plot(times, values, **style, linewidth=1.4, markersize=5, label=name)
    axes.vlines(times, low, high, color=style["color"], linewidth=1.2, alpha=0.7)

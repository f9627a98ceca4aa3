"""Whether probabilities mean what they say: calibration curves, slopes and intercepts."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histill.report.figures import GREY, REFERENCE, STYLE, defined, finish, main_models, model_style, svg
from histill.report.wording import estimate

MOST_ROWS, MOST_COLUMNS = 3, 4
_SIDE = 2.5  # inches of a panel


def calibration_facts(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page says of the calibration of a task's models; None where none gives probabilities.

    Returns
    -------
    `note`; `models`, [(name, rows)], a row with `of`, `slope`, `intercept` and `reading` (words); `figure`, `uri`
    and `alt`, a row of panels for each main model.
    """
    found = report.get("calibration")
    if not found or not any(found["models"].values()):
        return None
    models = [
        (name, [{**entry, "reading": reading(entry["slope"])} for entry in entries])
        for name, entries in found["models"].items()
        if entries
    ]
    return {"note": found["note"], "models": models, "figure": _figure(dict(models))}


def reading(slope: dict[str, Any] | None) -> str:
    """What a calibration slope says in words: 1 is ideal."""
    if slope is None or slope["low"] is None:
        return "cannot be told"
    if slope["low"] > 1:
        return "too cautious"
    return "too extreme" if slope["high"] < 1 else "no fault shown"


def _figure(models: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """A row a model, a column a class or horizon; one class alone has its models side by side."""
    names = main_models(models, MOST_ROWS)
    events = list(dict.fromkeys(entry["of"] for name in names for entry in models[name]))[:MOST_COLUMNS]
    drawn = {(name, entry["of"]): entry for name in names for entry in models[name] if entry["of"] in events}
    alone = len(events) == 1
    rows, columns = (1, len(names)) if alone else (len(names), len(events))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.5 + _SIDE * columns, 0.4 + _SIDE * rows), layout="constrained")
        places = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        pairs = [(name, of) for name in names for of in events]
        for place, (axes, (name, of)) in enumerate(zip(places.ravel(), pairs, strict=True)):
            _draw(axes, drawn.get((name, of)), model_style(name))
            axes.set_title(name if alone else of if place < columns else "")
            if place % columns == 0:
                axes.set_ylabel(f"{of}\nobserved" if alone else f"{name}\nobserved")
        figure.supxlabel("Predicted", fontsize=9)
        said = "; ".join(
            f"{name}, {of}, slope {estimate(entry['slope'], digits=2)}" for (name, of), entry in drawn.items()
        )
        return {"uri": svg(figure), "alt": f"Observed against predicted probability. {said}."}


def _draw(axes: Axes, entry: dict[str, Any] | None, style: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], **REFERENCE)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    finish(axes)
    if entry is None:
        axes.text(0.5, 0.5, "not scored", color=GREY, fontsize=8, ha="center", va="center")
        return
    curve = entry["curve"]
    low, high = defined(curve["low"]), defined(curve["high"])
    axes.vlines(curve["predicted"], low, high, color=style["color"], linewidth=1.1, alpha=0.6)
    axes.plot(curve["predicted"], defined(curve["observed"]), **style, markersize=4.5, linewidth=1.2)

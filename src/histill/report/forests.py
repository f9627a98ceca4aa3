"""Forest plots: points with intervals, one row a model, a comparison or a subgroup, one panel a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histill.report.figures import BLACK, REFERENCE, STYLE, VERMILION, finish, model_style, svg

# Panels of the forest by task type, where the report has them; the table holds every metric.
_DRAWN = {
    "survival": ("c_index", "td_auc", "ibs"),
    "classification": ("auc", "balanced_accuracy", "brier"),
}
_LABEL_INCHES, _PANEL_INCHES, _ROW_INCHES = 2.3, 2.5, 0.34


@dataclass(frozen=True)
class Row:
    """A row of a forest plot.

    Attributes
    ----------
    estimates
        One a panel, each with `value`, `low`, `high` and perhaps `folds`; None leaves the place empty.
    colour, mark
        Of the point, as matplotlib names them.
    """

    label: str
    estimates: list[dict[str, Any] | None]
    colour: str = BLACK
    mark: str = "o"


def drawn_metrics(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that the forest of models shows: up to three, discrimination first."""
    by_key = {metric["key"]: metric for metric in report["metrics"]}
    return [by_key[key] for key in _DRAWN[report["type"]] if key in by_key]


def models(report: dict[str, Any], scored: dict[str, Any], names: list[str]) -> str | None:
    """Metrics of the models of one set of patients (`paired`, or an external cohort).

    Parameters
    ----------
    report
        Of `histill.evaluation.stage.run`.
    scored
        Its `paired`, or what is shaped like it.
    names
        The models, from above to below.
    """
    metrics = drawn_metrics(report)
    rows = []
    for name in names:
        style, found = model_style(name), scored["models"][name]
        rows.append(Row(name, [found[metric["key"]] for metric in metrics], style["color"], style["marker"]))
    chance = 1 / max(2, len(report["classes"]))
    references = {"c_index": 0.5, "td_auc": 0.5, "auc": 0.5, "balanced_accuracy": chance}
    below = [f"{'more' if metric['higher_is_better'] else 'less'} is better" for metric in metrics]
    titles = [metric["name"] for metric in metrics]
    return draw(rows, titles, [references.get(metric["key"]) for metric in metrics], below=below)


def differences(rows: list[dict[str, Any]], metric: dict[str, Any]) -> str | None:
    """Paired differences of one metric around zero; what distillation is worth is drawn in vermilion, with squares.

    Parameters
    ----------
    rows
        Of `histill.report.comparisons.comparison_facts`.
    """
    marked = {True: (VERMILION, "s"), False: (BLACK, "o")}
    found = [Row(f"{row['a']}\n− {row['b']}", [row], *marked[row["distillation"]]) for row in rows]
    return draw(found, [f"{metric['name']}, difference"], [0.0], row_inches=0.44, panel_inches=4.6)


def draw(
    rows: list[Row],
    titles: list[str],
    references: list[float | None],
    *,
    below: list[str] | None = None,
    row_inches: float = _ROW_INCHES,
    panel_inches: float = _PANEL_INCHES,
) -> str | None:
    """The figure as a data URI; None where no estimate has a value.

    Parameters
    ----------
    titles, references
        One a panel; a reference is a dashed vertical line.
    below
        What stands below each panel.
    row_inches, panel_inches
        Height of a row, width of a panel.
    """
    if not any(estimate and estimate["value"] is not None for row in rows for estimate in row.estimates):
        return None
    with mpl.rc_context(STYLE):
        size = (_LABEL_INCHES + panel_inches * max(1, len(titles)), 0.7 + row_inches * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        places = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
        for column, (axes, title, reference) in enumerate(zip(places, titles, references, strict=True)):
            for place, row in enumerate(rows):
                if row.estimates[column]:
                    _draw_estimate(axes, place, row.estimates[column], row)
            if reference is not None:
                axes.axvline(reference, **REFERENCE)
            axes.set_title(title)
            axes.set_xlabel(below[column] if below else "")
            axes.set_yticks(range(len(rows)), [row.label for row in rows])
            axes.tick_params(axis="y", length=0)
            finish(axes, grid="x")
        places[0].set_ylim(len(rows) - 0.5, -0.5)
        return svg(figure)


def _draw_estimate(axes: Axes, place: int, estimate: dict[str, Any], row: Row) -> None:
    folds = [fold["value"] for fold in estimate.get("folds", ()) if fold["value"] is not None]
    axes.plot(folds, [place + 0.26] * len(folds), "|", color="#999999", markersize=5)
    if estimate["low"] is not None:
        ends = [estimate["low"], estimate["high"]]
        axes.plot(ends, [place, place], color=row.colour, linewidth=2, solid_capstyle="butt")
    if estimate["value"] is not None:
        axes.plot(estimate["value"], place, row.mark, color=row.colour, markersize=6)

"""The times at which survival is scored, and what the training patients tell of censoring until then."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.survival_metrics import Censoring

QUARTILES = (0.25, 0.5, 0.75)
AT_RISK, AT_RISK_SHARE = 3, 0.1  # tested patients of a fold who must be followed beyond a horizon: count, share
_UNITS = ("day", "week", "month", "year")
_RULE = (
    "Horizons are the quartiles of the event times of all labelled patients, rounded to two digits, and moved down "
    "where that is needed: in every fold at least {count} tested patients ({share:.0%} in large folds) are followed "
    "beyond a horizon, and every model's intervals reach it."
)
_ASKED = (
    "Horizons are those of evaluation.horizons. A fold in which nobody is followed beyond one, or whose model's "
    "intervals end before it, is left out there."
)
_NONE = " No horizon fulfils this, so nothing is scored at horizons."


@dataclass(frozen=True)
class Horizons:
    """Times at which survival is scored.

    Attributes
    ----------
    times
        Ascending, in units of the time column; empty where nothing is scored at horizons.
    censoring
        Fold -> censoring of its training patients.
    note
        How the times were chosen, for readers.
    """

    times: tuple[float, ...] = ()
    censoring: dict[int, Censoring] = field(default_factory=dict)
    note: str = ""


def choose(outcomes: Outcomes, asked: list[float] | None, models: list[Predictions]) -> Horizons:
    """Horizons that are asked for, or by the rule of `Horizons.note`, on what all models predict."""
    censoring = {fold: training_censoring(outcomes, fold) for fold in outcomes.folds}
    if asked is not None:
        return Horizons(tuple(sorted(set(map(float, asked)))), censoring, _ASKED)
    limit = _limit(outcomes, censoring, models)
    events = [time for time, event in outcomes.values.values() if event]
    found = {readable(float(time), limit) for time in np.quantile(events, QUARTILES)} if events else set()
    times = tuple(sorted(time for time in found if time))
    note = _RULE.format(count=AT_RISK, share=AT_RISK_SHARE)
    return Horizons(times, censoring, note if times else note + _NONE)


def training_censoring(outcomes: Outcomes, fold: int) -> Censoring:
    """Censoring of the patients that the other folds of the same repeat test."""
    repeat = next(own.index(fold) for own in outcomes.assignment.values() if fold in own)
    rows = [
        outcomes.values[patient]
        for patient, own in outcomes.assignment.items()
        if patient in outcomes.values and min(own) >= 0 and own[repeat] != fold
    ]
    time, event = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return Censoring.fit(event, time)


def readable(time: float, limit: float) -> float | None:
    """A time rounded to two digits, or the largest such value below the limit; None where there is none."""
    if min(time, limit) <= 0:
        return None
    step = 10.0 ** (math.floor(math.log10(min(time, limit))) - 1)
    count = round(time / step)
    if count * step >= limit:
        count = math.ceil(limit / step) - 1
    return float(f"{count * step:.12g}") or None


def unit(column: str) -> str:
    """What follows a time of a column: `months` of `os_months`, else the column's name."""
    found = [name for name in _UNITS if re.search(rf"(?:^|[^a-z]){name}s?(?:$|[^a-z])", column.lower())]
    return f"{found[0]}s" if len(found) == 1 else column


def _limit(outcomes: Outcomes, censoring: dict[int, Censoring], models: list[Predictions]) -> float:
    """The time that horizons must stay below."""
    limits = []
    for fold, members in outcomes.tested.items():
        followed = sorted(outcomes.values[patient][0] for patient in members)
        needed = max(AT_RISK, math.ceil(AT_RISK_SHARE * len(members)))
        limits.append(followed[-needed] if len(members) > needed else 0.0)
        limits.append(censoring[fold].last)
    for model in models:
        limits += [np.nextafter(curves.times[-1], np.inf) for curves in model.survival.values()]
    return float(min(limits, default=0.0))

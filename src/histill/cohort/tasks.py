"""Tasks and labels: what is learned from which clinical columns."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histill.cohort.sheets import Clinical

MAX_ROWS_NAMED = 10


@dataclass(frozen=True)
class Task:
    """A classification task (`label` column) or a survival task (`time` and `event` columns).

    Survival times are in whatever unit the sheet uses (stated in the report as the column's name); events are 1 for the
    event (death) and 0 for censored. `bins` is the number of intervals of the discrete-time hazard model.
    """

    name: str
    type: str
    columns: tuple[str, ...]
    bins: int = 4

    @classmethod
    def from_config(cls, name: str, options: dict[str, Any]) -> Task:
        if options["type"] == "classification":
            return cls(name, "classification", (options["label"],))
        return cls(name, "survival", (options["time"], options["event"]), options["bins"])

    def label(self, row: dict[str, str] | None) -> str | tuple[float, int] | None:
        """Class name, or (time, event), of a clinical row; None where the outcome is not known."""
        if row is None or any(column not in row for column in self.columns):
            return None
        if self.type == "classification":
            return row[self.columns[0]]
        return float(row[self.columns[0]]), int(float(row[self.columns[1]]))

    def check(self, clinical: Clinical, folds: int) -> list[str]:
        """Everything that is wrong with the task's columns in the sheet, one line a problem."""
        if not clinical.rows:
            return []  # the sheet itself could not be read, which has been said
        absent = [
            f"{clinical.path}: task '{self.name}' needs column '{column}', which does not exist"
            for column in self.columns
            if column not in clinical.columns
        ]
        if absent:
            return absent
        return (
            self._check_classes(clinical, folds)
            if self.type == "classification"
            else self._check_times(clinical, folds)
        )

    def _check_classes(self, clinical: Clinical, folds: int) -> list[str]:
        path, column = clinical.path, self.columns[0]
        counts = Counter(row[column] for row in clinical.rows.values() if column in row)
        if len(counts) < 2:
            only = f"one class only ('{next(iter(counts))}')" if counts else "no value at all"
            return [f"{path}: column '{column}' of task '{self.name}' holds {only}; a classification needs two"]
        at = f"{path}: column '{column}' of task '{self.name}'"
        spelled: dict[str, str] = {}
        problems = []
        for name, count in sorted(counts.items()):
            first = spelled.setdefault(" ".join(name.split()).casefold(), name)
            if not name.isprintable():
                problems.append(f"{at}: class {name!r} holds a line break or another character that is no text")
            elif first != name:
                problems.append(f"{at}: classes '{first}' and '{name}' differ in case or spaces only; write them alike")
            elif count < folds:
                problems.append(
                    f"{at}: class '{name}' has {count} patients, fewer than the {folds} folds; merge it, "
                    "empty those cells, or lower folds.n"
                )
        return problems if len(problems) <= MAX_ROWS_NAMED else [*problems[:MAX_ROWS_NAMED], f"{at}: and so on"]

    def _check_times(self, clinical: Clinical, folds: int) -> list[str]:
        path, (time_column, event_column) = clinical.path, self.columns
        problems = []
        events: list[float] = []
        latest = 0.0
        for patient, row in clinical.rows.items():
            at = f"{path}, line {clinical.lines[patient]}: patient '{patient}'"
            time, event = row.get(time_column), row.get(event_column)
            if (time is None) != (event is None):
                empty, full = (time_column, event_column) if time is None else (event_column, time_column)
                problems.append(f"{at}: '{full}' is given and '{empty}' is empty; fill both or empty both")
                continue
            if time is None or event is None:
                continue
            value = _number(time)
            if value is None:
                problems.append(f"{at}: '{time_column}' is {time!r}, which is no number")
            elif value < 0:
                problems.append(f"{at}: '{time_column}' is {time}, and a time cannot be negative")
            if _number(event) not in (0.0, 1.0):
                problems.append(f"{at}: '{event_column}' is {event!r}; 1 is the event, 0 is censored")
            elif value is not None:
                latest = max(latest, value)
                events.extend([value] * int(float(event)))
        if len(problems) > MAX_ROWS_NAMED:
            more = len(problems) - MAX_ROWS_NAMED
            problems = [*problems[:MAX_ROWS_NAMED], f"{path}: and {more} more such rows of task '{self.name}'"]
        if not problems and len(events) < folds:
            problems.append(
                f"{path}: task '{self.name}' has {len(events)} events, fewer than the {folds} folds; "
                "survival cannot be learned from that"
            )
        elif not problems and min(events) == latest:
            problems.append(
                f"{path}: task '{self.name}': no patient's '{time_column}' is later than the first event ({latest:g}), "
                "so nobody can be ranked"
            )
        return problems


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if "_" in text or not text.isascii():  # float() takes 1_000 and digits of any script
        return None
    return value if math.isfinite(value) else None

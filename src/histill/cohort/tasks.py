"""Tasks and labels: what is learned from which clinical columns."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from histill.cohort import markers
from histill.cohort.glioma import Rule, Verdict

if TYPE_CHECKING:
    from histill.cohort.sheets import Clinical

MAX_ROWS_NAMED = 10
Where = tuple[tuple[str, tuple[float | str, ...]], ...]
NINES = re.compile(r"-9+([.]0+)?")  # what clinical tables write for "not known"
_CODE = "reads like a code for 'not known'; empty the cell (of survival, time and event), or set missing_codes: [{}]"


@dataclass(frozen=True)
class Task:
    """A classification task (`label` column, or a rule) or a survival task (`time` and `event` columns).

    Survival times are in whatever unit the sheet uses (stated in the report as the column's name); events are 1 for the
    event (death) and 0 for censored. `bins` is the number of intervals of the discrete-time hazard model.

    Attributes
    ----------
    columns
        Of the clinical sheet: the label, time and event, or those that the rule reads.
    rule
        What gives patients their class, in place of a label column.
    missing_codes
        Numbers and words that mean "not known" in the task's columns.
    where
        Columns and values: the task is of the patients that have one of its values in each column, such as those of one
        of several cohorts. The others have no label for it.
    """

    name: str
    type: str
    columns: tuple[str, ...]
    bins: int = 4
    rule: Rule | None = None
    missing_codes: tuple[float | str, ...] = ()
    where: Where = ()

    @classmethod
    def from_config(cls, name: str, options: dict[str, Any]) -> Task:
        where = options.get("where", {}).items()
        shared = {
            "missing_codes": tuple(options.get("missing_codes", ())),
            "where": tuple((column, tuple(v if isinstance(v, list) else [v])) for column, v in where),
        }
        if options["type"] == "survival":
            return cls(name, "survival", (options["time"], options["event"]), options["bins"], **shared)
        if "rule" not in options:
            return cls(name, "classification", (options["label"],), **shared)
        rule = Rule.from_config(options)
        return cls(name, "classification", tuple(rule.columns.values()), rule=rule, **shared)

    def covers(self, row: dict[str, str]) -> bool:
        """Whether the task is of the patient of a clinical row (see `where`)."""
        return all(column in row and any(same_cell(row[column], v) for v in values) for column, values in self.where)

    def label(self, row: dict[str, str] | None) -> str | tuple[float, int] | None:
        """Class name, or (time, event), of a clinical row; None where it is not known or the task is of others."""
        if row is None or not self.covers(row):
            return None
        if self.rule:
            return self._verdict(row).label
        cells = [self._cell(row, column) for column in self.columns]
        if None in cells:
            return None
        return cells[0] if self.type == "classification" else (float(cells[0]), int(float(cells[1])))

    def sources(self) -> dict[str, str]:
        """Where labels come from, for reports: `label`, or `time` and `event`, or `rule` and a column a marker.

        `where` says which patients the task is of, where it is not of all.
        """
        where = {"where": f"where {self._condition()}"} if self.where else {}
        if self.rule:
            return {"rule": f"rule {self.rule.name} ({self.rule.preset})", **self.rule.columns, **where}
        keys = ("label",) if self.type == "classification" else ("time", "event")
        return dict(zip(keys, self.columns, strict=True)) | where

    def _condition(self) -> str:
        return " and ".join(f"{column} is {' or '.join(map(str, values))}" for column, values in self.where)

    def _cell(self, row: dict[str, str], column: str) -> str | None:
        text = row.get(column)
        return None if text is None or self._is_code(text) else text

    def _is_code(self, text: str) -> bool:
        return any(same_cell(text, code) for code in self.missing_codes)

    def _verdict(self, row: dict[str, str]) -> Verdict:
        return self.rule.verdict({marker: self._cell(row, column) for marker, column in self.rule.columns.items()})

    def notes(self, clinical: Clinical) -> Iterator[str]:
        """What is no error and worth saying of the patients of a checked sheet, with the lines of some of them."""
        own = self._own(clinical)
        if self.where:
            yield f"task '{self.name}' is of {len(own.rows)} of {len(clinical.rows)} patients: {self._condition()}"
        found: dict[str, list[int]] = defaultdict(list)
        for patient, row in own.rows.items():
            for remark in self._remarks(row):
                found[remark].append(clinical.lines.get(patient, 0))
        for remark, lines in sorted(found.items()):
            named = ", ".join(map(str, sorted(lines)[:MAX_ROWS_NAMED])) + (", ..." if lines[MAX_ROWS_NAMED:] else "")
            count = f"{len(lines)} patient{'' if len(lines) == 1 else 's'}"
            yield f"task '{self.name}': {count} {remark} ({clinical.path}, line{'s'[: len(lines) > 1]} {named})"

    def _remarks(self, row: dict[str, str]) -> Iterator[str]:
        if self.rule:
            verdict = self._verdict(row)
            if verdict.label is None:
                yield f"without a class by rule '{self.rule.name}': {verdict.remark}"
            elif verdict.remark:
                yield f"of class '{verdict.label}' by rule '{self.rule.name}' with a reservation: {verdict.remark}"
        elif self.type == "survival" and (label := self.label(row)) is not None and label[0] == 0:
            yield f"whose '{self.columns[0]}' is 0; kept"
        for column in self.columns:
            if column in row and self._is_code(row[column]):
                yield f"whose '{column}' is {row[column]}, read as not known"

    def check(self, clinical: Clinical, folds: int) -> list[str]:
        """Everything that is wrong with the task's columns in the sheet, one line a problem."""
        if self.rule and (problems := [f"config: task '{self.name}': {problem}" for problem in self.rule.problems()]):
            return problems
        if not clinical.rows:
            return []  # the sheet itself could not be read, which has been said
        absent = [self._absent(clinical, column) for column in self.columns if column not in clinical.columns]
        if problems := absent or list(self._check_where(clinical)):
            return problems
        own = self._own(clinical)
        if self.type == "survival":
            return self._check_times(own, folds)
        return (self.rule and self._check_spellings(own)) or self._check_classes(own, folds)

    def _own(self, clinical: Clinical) -> Clinical:
        """The rows of the patients that the task is of."""
        return replace(clinical, rows={patient: row for patient, row in clinical.rows.items() if self.covers(row)})

    def _check_where(self, clinical: Clinical) -> Iterator[str]:
        """Columns and values of `where` that the sheet does not have."""
        for column, values in self.where:
            at = f"{clinical.path}: task '{self.name}' is of patients by column '{column}' (where)"
            if column not in clinical.columns:
                yield f"{at}, which does not exist; the columns are {', '.join(clinical.columns)}"
                continue
            cells = sorted({row[column] for row in clinical.rows.values() if column in row})
            named = ", ".join(cells[:MAX_ROWS_NAMED]) + (", ..." if cells[MAX_ROWS_NAMED:] else "")
            for value in values:
                if not any(same_cell(cell, value) for cell in cells):
                    yield f"{at}, and no patient has {value!r} there; it holds {named or 'no value'}"

    def _absent(self, clinical: Clinical, column: str) -> str:
        problem = f"{clinical.path}: task '{self.name}' needs column '{column}', which does not exist"
        if not self.rule:
            return problem
        marker = next(marker for marker, name in self.rule.columns.items() if name == column)
        without = "" if marker in self.rule.needs() else f", or set columns.{marker}: null to do without"
        return f"{problem}; name yours in the task's columns.{marker}{without}"

    def _check_spellings(self, clinical: Clinical) -> list[str]:
        """Cells that the rule cannot read, and columns that it could read in two ways."""
        path, problems = clinical.path, []
        for marker, column in self.rule.columns.items():
            cells = {patient: self._cell(row, column) for patient, row in clinical.rows.items()}
            given = {patient: text for patient, text in cells.items() if text is not None}
            if markers.ambiguous(marker, set(given.values())):
                problems.append(
                    f"{path}: column '{column}' of task '{self.name}' holds 0 and 1 only, which could be no and yes or "
                    "copy-number calls; write 'no' and 'yes', or 'gain' for the calls of 1"
                )
            for patient, text in given.items():
                try:
                    markers.read(marker, text)
                except ValueError as known:
                    problems.append(
                        f"{path}, line {clinical.lines[patient]}: patient '{patient}': '{column}' is {text!r}, no "
                        f"known spelling of {marker}; write one of these, or empty the cell: {known}"
                    )
        return self._limit(path, problems)

    def _limit(self, path: str, problems: list[str]) -> list[str]:
        if len(problems) <= MAX_ROWS_NAMED:
            return problems
        more = len(problems) - MAX_ROWS_NAMED
        return [*problems[:MAX_ROWS_NAMED], f"{path}: and {more} more such rows of task '{self.name}'"]

    def _check_classes(self, clinical: Clinical, folds: int) -> list[str]:
        source = f"rule '{self.rule.name}'" if self.rule else f"column '{self.columns[0]}'"
        at = f"{clinical.path}: {source} of task '{self.name}'"
        counts = Counter(label for row in clinical.rows.values() if (label := self.label(row)) is not None)
        if len(counts) < 2:
            only = f"one class only ('{next(iter(counts))}')" if counts else "no value at all"
            return [f"{at} {'gives' if self.rule else 'holds'} {only}; a classification needs two"]
        spelled: dict[str, str] = {}
        problems = []
        for name, count in sorted(counts.items()):
            first = spelled.setdefault(" ".join(name.split()).casefold(), name)
            if not name.isprintable():
                problems.append(f"{at}: class {name!r} holds a line break or another character that is no text")
            elif NINES.fullmatch(name):
                problems.append(f"{at}: class '{name}' {_CODE.format(name)}")
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
            given = {column: row[column] for column in self.columns if column in row}
            if any(self._is_code(text) for text in given.values()):
                continue
            coded = [
                f"'{column}' is {text}, which {_CODE.format(text)}"
                for column, text in given.items()
                if NINES.fullmatch(text)
            ]
            if coded:
                problems.extend(f"{at}: {problem}" for problem in coded)
                continue
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
        problems = self._limit(path, problems)
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


def same_cell(text: str, value: float | str) -> bool:
    """Whether a cell holds a value of the config: the same number, or the same word in upper or lower case."""
    return text.casefold() == value.casefold() if isinstance(value, str) else _number(text) == value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if "_" in text or not text.isascii():  # float() takes 1_000 and digits of any script
        return None
    return value if math.isfinite(value) else None

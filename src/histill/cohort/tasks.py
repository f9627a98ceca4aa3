"""Tasks and labels: what is learned from which clinical columns."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from histill.cohort import markers
from histill.cohort.glioma import Rule, Verdict

if TYPE_CHECKING:
    from histill.cohort.sheets import Clinical

MAX_ROWS_NAMED = 10
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
    """

    name: str
    type: str
    columns: tuple[str, ...]
    bins: int = 4
    rule: Rule | None = None
    missing_codes: tuple[float | str, ...] = ()

    @classmethod
    def from_config(cls, name: str, options: dict[str, Any]) -> Task:
        codes = tuple(options.get("missing_codes", ()))
        if options["type"] == "survival":
            columns = (options["time"], options["event"])
            return cls(name, "survival", columns, options["bins"], missing_codes=codes)
        if "rule" not in options:
            return cls(name, "classification", (options["label"],), missing_codes=codes)
        rule = Rule.from_config(options)
        return cls(name, "classification", tuple(rule.columns.values()), rule=rule, missing_codes=codes)

    def label(self, row: dict[str, str] | None) -> str | tuple[float, int] | None:
        """Class name, or (time, event), of a clinical row; None where the outcome is not known."""
        if row is None:
            return None
        if self.rule:
            return self._verdict(row).label
        cells = [self._cell(row, column) for column in self.columns]
        if None in cells:
            return None
        return cells[0] if self.type == "classification" else (float(cells[0]), int(float(cells[1])))

    def sources(self) -> dict[str, str]:
        """Where labels come from, for reports: `label`, or `time` and `event`, or `rule` and a column a marker."""
        if self.rule:
            return {"rule": f"rule {self.rule.name} ({self.rule.preset})", **self.rule.columns}
        keys = ("label",) if self.type == "classification" else ("time", "event")
        return dict(zip(keys, self.columns, strict=True))

    def _cell(self, row: dict[str, str], column: str) -> str | None:
        text = row.get(column)
        return None if text is None or self._is_code(text) else text

    def _is_code(self, text: str) -> bool:
        return any(
            text.casefold() == code.casefold() if isinstance(code, str) else _number(text) == code
            for code in self.missing_codes
        )

    def _verdict(self, row: dict[str, str]) -> Verdict:
        return self.rule.verdict({marker: self._cell(row, column) for marker, column in self.rule.columns.items()})

    def notes(self, clinical: Clinical) -> Iterator[str]:
        """What is no error and worth saying of the patients of a checked sheet, with the lines of some of them."""
        found: dict[str, list[int]] = defaultdict(list)
        for patient, row in clinical.rows.items():
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
        if absent:
            return absent
        if self.type == "survival":
            return self._check_times(clinical, folds)
        return (self.rule and self._check_spellings(clinical)) or self._check_classes(clinical, folds)

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


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if "_" in text or not text.isascii():  # float() takes 1_000 and digits of any script
        return None
    return value if math.isfinite(value) else None

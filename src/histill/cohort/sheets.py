"""Sample sheets: read them, check every row, and tell all problems at once.

This module is read by the Snakefile at every start, so it is light: no pandas, one pass over each sheet.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histill.cohort.rows import read_rows
from histill.cohort.tasks import Task
from histill.config import schema
from histill.errors import ConfigError

MAX_PROBLEMS_A_SHEET = 50
# Control characters, line and paragraph separators, and characters without a width or that turn the text around.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


@dataclass(frozen=True)
class Slide:
    """One row of slides.csv. `mpp` is the sheet's override in µm per pixel, or None."""

    slide_id: str
    patient_id: str
    path: str
    mpp: float | None = None
    site: str | None = None
    stain: str | None = None


@dataclass
class Clinical:
    """clinical.csv: patient id -> column -> text (missing values are absent), and the line each patient stands on."""

    path: str = "clinical.csv"
    columns: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass
class Sheets:
    """The checked sheets of a cohort.

    Attributes
    ----------
    slides
        By slide id, in the order of the sheet. Empty when features come from one table.
    notes
        Things worth saying that are no errors (patients without an outcome, ...).
    """

    slides: dict[str, Slide] = field(default_factory=dict)
    clinical: Clinical = field(default_factory=Clinical)
    expression: str | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def patients(self) -> set[str]:
        """Patients of the slide sheet and of the clinical sheet."""
        return {slide.patient_id for slide in self.slides.values()} | self.clinical.rows.keys()

    def sites(self) -> dict[str, str]:
        """Site of each patient of which it is known: of the clinical sheet, else of the first slide that names one."""
        found: dict[str, str] = {}
        for slide in self.slides.values():
            if slide.site:
                found.setdefault(slide.patient_id, slide.site)
        return found | {patient: row["site"] for patient, row in self.clinical.rows.items() if row.get("site")}


def load(config: dict[str, Any], *, look: bool = True) -> Sheets:
    """Sheets of a complete config, checked; raises `ConfigError` with every problem found.

    Without `look` no slide file is looked for: the jobs of a run need not, since the run did, and a file that vanished
    meanwhile is its own slide's matter.

    For the synthetic cohort the sheets are computed from its seed, since their files are made by the workflow.
    """
    tasks = {name: Task.from_config(name, options) for name, options in config["tasks"].items()}
    if "demo" in config:
        from histill.demo.design import sheets as demo_sheets

        return demo_sheets(config["demo"], folder=Path(config["results"]) / "demo", tasks=tasks)
    cohort, features = config["cohort"], config["features"]
    problems: list[str] = []
    sheets = Sheets(expression=cohort["expression"], tasks=tasks)

    if features["source"] == "table":
        if cohort["slides"]:
            problems.append("config: features.source 'table' brings its own slide_id column; remove cohort.slides")
        _check_file(features["table"], "features.table", problems)
    else:
        if features["table"]:
            problems.append("config: features.table is only read with features.source: table")
        if not cohort["slides"]:
            problems.append("config: cohort.slides is missing: name the sheet that lists the slides")
        else:
            sheets.slides = _read_slides(cohort["slides"], problems, look)
    if cohort["clinical"]:
        sheets.clinical = _read_clinical(cohort["clinical"], problems)
        for task in tasks.values():
            problems.extend(task.check(sheets.clinical, config["folds"]["n"]))
    elif tasks:
        problems.append("config: tasks need label columns: name the sheet that holds them in cohort.clinical")
    if cohort["expression"]:
        _check_file(cohort["expression"], "cohort.expression", problems, folder=True)
    if config["folds"]["file"]:
        _check_file(config["folds"]["file"], "folds.file", problems, folder=True)
    for key, path in config["transcriptome"]["gene_sets"].items():
        if key in ("tumor", "microenvironment") and path:
            _check_file(path, f"transcriptome.gene_sets.{key}", problems)
    own = {slide.patient_id for slide in sheets.slides.values()}
    if tasks and (problem := strangers("cohort.slides", own, "cohort.clinical", sheets.clinical.rows.keys())):
        problems.append(f"config: {problem}; write patient_id in one way everywhere")
    if problems:
        raise ConfigError(problems)
    sheets.notes = notes(sheets)
    return sheets


def _check_file(path: str | None, key: str, problems: list[str], *, folder: bool = False) -> None:
    if not path:
        problems.append(f"config: {key} is missing: name the file")
    elif not os.path.exists(path):
        problems.append(f"config: {key}: '{path}' does not exist (paths are relative to {os.getcwd()})")
    elif os.path.isdir(path) and not folder:
        problems.append(f"config: {key}: '{path}' is a folder, not a file")
    else:
        problems.extend(f"config: {key}: {problem}" for problem in check_name(path))


def check_name(path: str) -> Iterator[str]:
    """The problem of a name of a file that Snakemake would not take as it is, or that does not look as it is."""
    if "{" in path or "}" in path:
        yield f"path {_quoted(path)} holds a brace, which Snakemake takes for a wildcard; rename the file or its folder"
    if bad := _UNSEEN.search(path):
        yield (
            f"path {_quoted(path)} holds the character U+{ord(bad[0]):04X}, which breaks lines or is not seen; rename "
            "the file or its folder, or link to it under another name"
        )


def _read_slides(path: str, problems: list[str], look: bool) -> dict[str, Slide]:
    found: list[str] = []
    header, rows = read_rows(path, found)
    form = schema("slides")
    found.extend(_check_header(path, header, form))
    slides: dict[str, Slide] = {}
    lines: dict[str, tuple[int, str]] = {}
    files: dict[tuple[int, int], Slide] = {}
    for line, row in rows if not found else ():
        at = f"{path}, line {line}"
        bad = list(_check_row(at, row, form))
        found.extend(bad)
        if bad:
            continue
        slide = row["slide_id"]
        folded = slide.casefold()
        if folded in lines:
            first, spelled = lines[folded]
            how = (
                "occurs a second time" if spelled == slide else f"differs from '{spelled}' by upper and lower case only"
            )
            found.append(f"{at}: slide_id '{slide}' {how} (first on line {first}); ids become file names")
            continue
        lines[folded] = (line, slide)
        mpp = float(row["mpp"]) if "mpp" in row else None
        if mpp is not None and not 0.05 <= mpp <= 10:
            found.append(f"{at}: slide '{slide}': mpp {mpp:g} is outside 0.05 to 10 µm per pixel")
        slides[slide] = Slide(slide, row["patient_id"], row["path"], mpp, row.get("site"), row.get("stain"))
        problem_of = _check_path(slides[slide], files) if look else check_name(row["path"])
        found.extend(f"{at}: slide '{slide}': {problem}" for problem in problem_of)
    problems.extend(_limit(path, found))
    return slides


def _check_path(slide: Slide, files: dict[tuple[int, int], Slide]) -> Iterator[str]:
    """Problems of a slide's path; `files` maps (device, inode) to the first slide of each file."""
    if problems := list(check_name(slide.path)):
        yield from problems
        return
    try:
        status = os.stat(slide.path)
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        yield f"file '{_short(slide.path)}' {why} (paths are relative to {os.getcwd()})"
        return
    first = files.setdefault((status.st_dev, status.st_ino), slide)
    if first.patient_id != slide.patient_id and os.path.samefile(first.path, slide.path):
        # The same tissue in training and test would be a leak that no later stage can see.
        yield (
            f"file '{slide.path}' is that of slide '{first.slide_id}' too, which is another patient's "
            f"('{first.patient_id}', not '{slide.patient_id}')"
        )


def _quoted(path: str) -> str:
    return f"'{_short(path)}'" if path.isprintable() else ascii(_short(path))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _read_clinical(path: str, problems: list[str]) -> Clinical:
    found: list[str] = []
    header, rows = read_rows(path, found)
    form = schema("clinical")
    found.extend(_check_header(path, header, form))
    clinical = Clinical(path, header)
    for line, row in rows if not found else ():
        at = f"{path}, line {line}"
        bad = list(_check_row(at, row, form))
        found.extend(bad)
        if bad:
            continue
        patient = row["patient_id"]
        if patient in clinical.rows:
            first = clinical.lines[patient]
            found.append(f"{at}: patient_id '{patient}' occurs a second time (first on line {first})")
            continue
        clinical.rows[patient], clinical.lines[patient] = row, line
    problems.extend(_limit(path, found))
    return clinical


def _check_header(path: str, header: list[str], form: dict[str, Any]) -> Iterator[str]:
    if not header:
        return
    for column in form["required"]:
        if column not in header:
            near = difflib.get_close_matches(column, header, n=1, cutoff=0.7)
            hint = f" (is it '{near[0]}'?)" if near else ""
            yield f"{path}: has no column '{column}'{hint}; its columns are {', '.join(header)}"
    known = list(form["properties"])
    for column in header:
        if column in known:
            continue
        # Columns of the user's own are welcome; a misspelled one would be ignored in silence.
        near = [name for name in known if name not in header and name not in form["required"]]
        for name in difflib.get_close_matches(column.lower(), near, n=1, cutoff=0.75):
            yield f"{path}: unknown column '{column}' looks like '{name}'; rename it, or to something else if it is not"


def _check_row(at: str, row: dict[str, str], form: dict[str, Any]) -> Iterator[str]:
    for column in form["required"]:
        if column not in row:
            yield f"{at}: '{column}' is empty"
    for column, rule in form["properties"].items():
        if column in row and "pattern" in rule and not re.fullmatch(rule["pattern"], row[column]):
            if column.endswith("_id"):
                yield (
                    f"{at}: {column} {row[column]!r} is no safe file name: use letters, digits, '.', '_' and '-' only, "
                    "a letter or digit first, 100 characters at most"
                )
            else:
                yield f"{at}: {column} {row[column]!r} is no positive number"


def _limit(path: str, found: list[str]) -> list[str]:
    if len(found) <= MAX_PROBLEMS_A_SHEET:
        return found
    return [*found[:MAX_PROBLEMS_A_SHEET], f"{path}: and {len(found) - MAX_PROBLEMS_A_SHEET} more problems"]


def strangers(first: str, ids: Set[str], second: str, others: Set[str]) -> str | None:
    """The problem of two sources without a patient in common, with both ways of writing ids; None if there is none."""
    if not ids or not others or ids & others:
        return None
    return (
        f"none of the {len(ids)} patients of {first} (such as '{min(ids)}') is among the {len(others)} of {second} "
        f"(such as '{min(others)}')"
    )


def notes(sheets: Sheets) -> list[str]:
    """What is no error and worth saying: patients without an outcome or without a clinical row."""
    found = []
    patients = {slide.patient_id for slide in sheets.slides.values()}
    without = sorted(patients - sheets.clinical.rows.keys())
    if without and sheets.clinical.rows:
        found.append(f"{_patients(len(without))} with slides and not in the clinical sheet; kept for prediction")
    for task in sheets.tasks.values():
        unlabelled = sum(task.covers(row) and task.label(row) is None for row in sheets.clinical.rows.values())
        if unlabelled:
            found.append(f"task '{task.name}': {_patients(unlabelled)} without an outcome; kept for prediction")
        found.extend(task.notes(sheets.clinical))
    return found


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"

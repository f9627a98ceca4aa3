"""Who is in the synthetic cohort: patients, their two latent factors, outcomes, slides and flaws, from a seed.

Every patient has a tumour factor t and a microenvironment factor e, independent standard normal. Pixels, counts and
outcomes follow from them, each with noise of its own: a slide shows a factor with correlation `PAINTED`, a
transcriptome with `EXPRESSED`. Genes thus know more than pixels do, and a student has something to gain from them.

This module is run by the Snakefile at every start: it imports nothing but numpy and reads no file.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from histill.cohort.sheets import Clinical, Sheets, Slide, notes
from histill.cohort.tasks import Task

MPP = 0.5
PAINTED = 0.80  # correlation of a factor with what a slide of the patient shows of it
EXPRESSED = 0.95  # correlation of a factor with the activity of its gene programme
HAZARD = (0.95, -0.80)  # log hazard ratio of one standard deviation of t and of e
LOGIT = (1.60, 1.60)  # log odds of "type B": the other diagonal of (t, e), so that both factors are needed
MEDIAN_MONTHS = 36.0
FOLLOW_UP_MONTHS = (8.0, 110.0)  # censoring is uniform between these
WEIBULL_SHAPE = 1.2
SITES = ("Northfield", "Southmoor", "Westbrook")
PENS = ("blue", "black", "green", "red")
CLASSES = ("type A", "type B")
CLINICAL_COLUMNS = ("patient_id", "age", "sex", "site", "os_months", "os_event", "diagnosis")
SLIDE_COLUMNS = ("slide_id", "patient_id", "path", "mpp", "site", "stain")

# Random streams: each purpose draws from its own, so that a change in one leaves the others as they are.
_LATENTS, _PERSONS, _ROLES, _SLIDES, EXPRESSION, PIXELS = range(6)


@dataclass(frozen=True)
class DemoSlide:
    """A slide to paint.

    Attributes
    ----------
    width, height
        Pixels at level 0 (0.5 µm per pixel).
    tumor, microenvironment
        The factors as this slide shows them, standard normal.
    pen
        Colour of the ink on it, or None.
    blurred
        Whether parts are out of focus.
    resolution_known
        False for the slide whose file says nothing about its resolution; the sheet does.
    corrupt
        True for the slide whose file is cut off.
    seed
        Seed of its pixels.
    """

    slide_id: str
    patient_id: str
    site: str
    width: int
    height: int
    tumor: float
    microenvironment: float
    pen: str | None
    blurred: bool
    resolution_known: bool
    corrupt: bool
    seed: tuple[int, ...]


@dataclass(frozen=True)
class DemoPatient:
    """A patient: factors, outcome (None where not known) and slides."""

    patient_id: str
    tumor: float
    microenvironment: float
    site: str
    age: int
    sex: str
    os_months: float | None
    os_event: int | None
    diagnosis: str | None
    has_rna: bool
    slides: tuple[DemoSlide, ...]


def stream(options: dict[str, Any], purpose: int) -> np.random.Generator:
    """The random generator of one purpose under `demo.seed`."""
    return np.random.default_rng([options["seed"], purpose])


def design(options: dict[str, Any]) -> tuple[DemoPatient, ...]:
    """The cohort of `demo` options (`patients`, `seed`, `size_px`), in the order of the sheets.

    About 15 % of the patients have two slides (the second slide of one of them is corrupt), 10 % have no RNA, one has
    RNA alone, one slide lacks its resolution, and one in 24 patients lacks an outcome; no patient has two of these.
    """
    n = options["patients"]
    latents, months, events, classes = _patients(options, n)
    roles = _roles(options, n)
    ids = [f"SYN-{index + 1:0{max(3, len(str(n)))}d}" for index in range(n)]
    rng = stream(options, _PERSONS)
    ages = np.clip(rng.normal(62, 11, n), 28, 90).astype(int)
    sexes = rng.choice(["female", "male"], n)
    sites = rng.choice(SITES, n, p=[0.45, 0.35, 0.20])
    slides = _slides(options, ids, latents, roles, sites)
    patients = []
    for index, patient_id in enumerate(ids):
        known = index not in roles["no_outcome"]
        patients.append(
            DemoPatient(
                patient_id=patient_id,
                tumor=float(latents[index, 0]),
                microenvironment=float(latents[index, 1]),
                site=str(sites[index]),
                age=int(ages[index]),
                sex=str(sexes[index]),
                os_months=float(months[index]) if known else None,
                os_event=int(events[index]) if known else None,
                diagnosis=CLASSES[classes[index]] if known else None,
                has_rna=index not in roles["no_rna"],
                slides=slides[patient_id],
            )
        )
    return tuple(patients)


def _even(rng: np.random.Generator, n: int, dimensions: int) -> np.ndarray:
    """Evenly spread uniform numbers in (0, 1), [n, dimensions]: a Kronecker lattice, shifted and ordered at random.

    Independent draws give some seeds a cohort of 48 with hardly a censored patient or with correlated factors; evenly
    spread ones keep every seed close to what the model says. The irrationals are powers of the generalised golden
    ratio (the root of x^(d+1) = x + 1).
    """
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    points = (rng.random(dimensions) + np.outer(np.arange(n), steps)) % 1
    return np.clip(rng.permutation(points), 1e-6, 1 - 1e-6)


def _patients(options: dict[str, Any], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Factors [n, 2], months (0.1 exact), events and class index: Weibull proportional hazards and a logistic model."""
    uniform = _even(stream(options, _LATENTS), n, 5)
    quantile = NormalDist().inv_cdf
    latents = np.array([[quantile(value) for value in row] for row in uniform[:, :2].tolist()])
    baseline = -np.log(uniform[:, 2]) / (math.log(2) * np.exp(latents @ np.array(HAZARD)))
    death = MEDIAN_MONTHS * baseline ** (1 / WEIBULL_SHAPE)
    first, last = FOLLOW_UP_MONTHS
    censoring = first + (last - first) * uniform[:, 3]
    months = np.maximum(np.round(np.minimum(death, censoring), 1), 0.1)
    score = latents @ np.array(LOGIT) + np.log(uniform[:, 4] / (1 - uniform[:, 4]))
    # Cut at the median: both classes hold half of the patients in a cohort of any size.
    return latents, months, death <= censoring, (score > np.median(score)).astype(int)


def _roles(options: dict[str, Any], n: int) -> dict[str, list[int]]:
    """Patient indices of every role; no patient has two roles."""
    order = [int(index) for index in stream(options, _ROLES).permutation(n)]
    counts = {
        "rna_only": 1,
        "no_rna": max(1, round(0.10 * n)),
        "no_outcome": max(1, round(n / 24)),
        "no_resolution": 1,
        "two_slides": max(1, round(0.15 * n)),
    }
    roles, start = {}, 0
    for name, count in counts.items():
        roles[name] = order[start : start + count]
        start += count
    return roles


def _slides(
    options: dict[str, Any], ids: list[str], latents: np.ndarray, roles: dict[str, list[int]], sites: np.ndarray
) -> dict[str, tuple[DemoSlide, ...]]:
    """Patient id -> slides."""
    rng = stream(options, _SLIDES)
    owners = []
    for index in range(len(ids)):
        owners += [index] * (0 if index in roles["rna_only"] else 2 if index in roles["two_slides"] else 1)
    shown = PAINTED * latents[owners] + math.sqrt(1 - PAINTED**2) * rng.standard_normal((len(owners), 2))
    sides = np.round(options["size_px"] * rng.uniform(0.86, 1.14, (len(owners), 2))).astype(int)
    flawed = [int(row) for row in rng.permutation(len(owners))]
    share = max(2, round(0.14 * len(owners)))
    pens = {row: PENS[rank % len(PENS)] for rank, row in enumerate(flawed[:share])}
    blurred = set(flawed[share // 2 : share // 2 + share])  # some slides have ink and blur
    numbers: Counter[int] = Counter()
    slides: dict[str, list[DemoSlide]] = {patient_id: [] for patient_id in ids}
    for row, index in enumerate(owners):
        numbers[index] += 1
        slides[ids[index]].append(
            DemoSlide(
                slide_id=f"{ids[index]}-{numbers[index]}",
                patient_id=ids[index],
                site=str(sites[index]),
                width=int(sides[row, 0]),
                height=int(sides[row, 1]),
                tumor=float(shown[row, 0]),
                microenvironment=float(shown[row, 1]),
                pen=pens.get(row),
                blurred=row in blurred,
                resolution_known=index not in roles["no_resolution"],
                corrupt=index == roles["two_slides"][0] and numbers[index] == 2,
                seed=(options["seed"], PIXELS, index, numbers[index]),
            )
        )
    return {patient_id: tuple(rows) for patient_id, rows in slides.items()}


def slide_path(folder: Path, slide_id: str) -> Path:
    """Where a slide of the cohort lies."""
    return folder / "slides" / f"{slide_id}.svs"


def slide_rows(patients: tuple[DemoPatient, ...], folder: Path) -> list[dict[str, str]]:
    """Rows of slides.csv (`SLIDE_COLUMNS`; empty cells are empty text)."""
    return [
        {
            "slide_id": slide.slide_id,
            "patient_id": slide.patient_id,
            "path": str(slide_path(folder, slide.slide_id)),
            "mpp": "" if slide.resolution_known else f"{MPP:g}",
            "site": slide.site,
            "stain": "H&E",
        }
        for patient in patients
        for slide in patient.slides
    ]


def clinical_rows(patients: tuple[DemoPatient, ...]) -> list[dict[str, str]]:
    """Rows of clinical.csv (`CLINICAL_COLUMNS`; empty cells are empty text)."""
    return [
        {
            "patient_id": patient.patient_id,
            "age": str(patient.age),
            "sex": patient.sex,
            "site": patient.site,
            "os_months": "" if patient.os_months is None else f"{patient.os_months:.1f}",
            "os_event": "" if patient.os_event is None else str(patient.os_event),
            "diagnosis": patient.diagnosis or "",
        }
        for patient in patients
    ]


def sheets(options: dict[str, Any], *, folder: Path, tasks: dict[str, Task]) -> Sheets:
    """The sheets of the cohort below `folder`, as `histill.cohort.sheets.load` reads the files that `make` writes."""
    patients = design(options)
    clinical = Clinical(str(folder / "clinical.csv"), list(CLINICAL_COLUMNS))
    for line, row in enumerate(clinical_rows(patients), start=2):
        clinical.rows[row["patient_id"]] = {column: cell for column, cell in row.items() if cell}
        clinical.lines[row["patient_id"]] = line
    slides = {
        row["slide_id"]: Slide(
            row["slide_id"],
            row["patient_id"],
            row["path"],
            float(row["mpp"]) if row["mpp"] else None,
            row["site"],
            row["stain"],
        )
        for row in slide_rows(patients, folder)
    }
    found = Sheets(slides, clinical, str(folder / "expression.tsv.gz"), tasks)
    found.notes = notes(found)
    return found

"""Who is in the synthetic cohort."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from histill.cohort.tasks import Task
from histill.demo.design import HAZARD, LOGIT, PENS, design, sheets

DEFAULT = {"patients": 48, "seed": 1, "size_px": 3072}
SEEDS = range(8)
TASKS = {
    "survival": Task("survival", "survival", ("os_months", "os_event")),
    "diagnosis": Task("diagnosis", "classification", ("diagnosis",)),
}


def test_same_seed_gives_the_same_cohort_and_another_seed_another():
    assert design(DEFAULT) == design(DEFAULT)
    assert design(DEFAULT) != design({**DEFAULT, "seed": 2})


@pytest.mark.parametrize("seed", SEEDS)
def test_outcomes_are_usable_for_every_seed(seed):
    patients = design({**DEFAULT, "seed": seed})
    classes = Counter(patient.diagnosis for patient in patients)
    events = [patient.os_event for patient in patients if patient.os_event is not None]
    assert classes["type A"] >= 10
    assert classes["type B"] >= 10
    assert sum(events) >= 18
    assert len(events) - sum(events) >= 8
    assert all(patient.os_months > 0 for patient in patients if patient.os_months is not None)


@pytest.mark.parametrize("patients", [12, 48, 150])
def test_flaws_are_all_there_once(patients):
    cohort = design({**DEFAULT, "patients": patients})
    slides = [slide for patient in cohort for slide in patient.slides]
    assert len({patient.patient_id for patient in cohort}) == patients
    assert len({slide.slide_id for slide in slides}) == len(slides)
    assert sum(not patient.slides for patient in cohort) == 1
    assert all(patient.has_rna for patient in cohort if not patient.slides)
    assert sum(slide.corrupt for slide in slides) == 1
    assert sum(not slide.resolution_known for slide in slides) == 1
    assert sum(not patient.has_rna for patient in cohort) == round(0.10 * patients)
    assert sum(len(patient.slides) == 2 for patient in cohort) == round(0.15 * patients)
    assert 1 <= sum(patient.diagnosis is None for patient in cohort) <= max(1, patients // 20)
    assert sum(slide.blurred for slide in slides) >= 1
    assert {slide.pen for slide in slides} >= {None, PENS[0], PENS[1]}
    assert all(("SYN" in slide.slide_id) and slide.slide_id.startswith(slide.patient_id) for slide in slides)


def test_default_slides_have_the_size_asked_for():
    sides = [side for patient in design(DEFAULT) for slide in patient.slides for side in (slide.width, slide.height)]
    assert min(sides) >= 2000
    assert max(sides) <= 4000
    assert len(set(sides)) > 20


def test_factors_are_independent_and_normal():
    latents = np.array([(p.tumor, p.microenvironment) for p in design({**DEFAULT, "patients": 1000})])
    assert abs(np.corrcoef(latents.T)[0, 1]) < 0.08
    assert np.allclose(latents.mean(0), 0, atol=0.05)
    assert np.allclose(latents.std(0), 1, atol=0.05)


def test_slides_show_the_factors_only_partly():
    patients = design({**DEFAULT, "patients": 1000})
    pairs = np.array([(p.tumor, s.tumor, p.microenvironment, s.microenvironment) for p in patients for s in p.slides])
    correlation = np.corrcoef(pairs.T)
    assert 0.7 < correlation[0, 1] < 0.9
    assert 0.7 < correlation[2, 3] < 0.9


def test_outcomes_depend_on_both_factors():
    patients = [p for p in design({**DEFAULT, "patients": 400}) if p.diagnosis]
    latents = np.array([(p.tumor, p.microenvironment) for p in patients])
    months = np.array([p.os_months for p in patients])
    event = np.array([p.os_event for p in patients], bool)
    diagnosis = np.array([p.diagnosis == "type B" for p in patients])
    oracle, single = _concordance(latents @ HAZARD, months, event), _concordance(latents[:, 0], months, event)
    assert 0.70 < oracle < 0.82
    assert oracle > single + 0.03
    assert oracle > _concordance(-latents[:, 1], months, event) + 0.03
    auc = _auc(latents @ LOGIT, diagnosis)
    assert 0.84 < auc < 0.93
    assert auc > max(_auc(latents[:, 0], diagnosis), _auc(latents[:, 1], diagnosis)) + 0.05


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    return float((score[positive][:, None] > score[~positive][None]).mean())


def _concordance(risk: np.ndarray, months: np.ndarray, event: np.ndarray) -> float:
    comparable = event[:, None] & (months[:, None] < months[None])
    return float((risk[:, None] > risk[None])[comparable].mean())


def test_tasks_find_nothing_wrong_with_the_sheet():
    found = sheets(DEFAULT, folder=Path("results/demo"), tasks=TASKS)
    assert [task.check(found.clinical, 5) for task in TASKS.values()] == [[], []]
    assert found.notes == [f"task '{name}': 2 patients without an outcome; kept for prediction" for name in TASKS]


def test_sheets_are_quick_and_light():
    sheets(DEFAULT, folder=Path("demo"), tasks=TASKS)
    start = time.process_time()
    sheets(DEFAULT, folder=Path("demo"), tasks=TASKS)
    assert time.process_time() - start < 0.05
    code = (
        "import sys; from pathlib import Path; from histill.demo.design import sheets;"
        f"sheets({DEFAULT!r}, folder=Path('demo'), tasks={{}});"
        "print([name for name in ('torch', 'pandas', 'cv2', 'scipy', 'tifffile', 'anndata') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

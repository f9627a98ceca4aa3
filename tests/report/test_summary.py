"""The summary: what a task came to in plain words, what is shown and what is not, and the traffic light."""

from __future__ import annotations

import copy

import pytest

from histill.report.summary import BAD, FINE, LOOK, NONE, checks, cohort_line, paragraph

METRIC = {"key": "c_index", "name": "C-index", "higher_is_better": True}
STUDENT, PLAIN = "disentangled student", "wsi-only"


def estimate(value, low, high):
    return {"c_index": {"value": value, "low": low, "high": high, "folds": []}}


@pytest.fixture
def task():
    models = {STUDENT: estimate(0.62, 0.55, 0.7), PLAIN: estimate(0.6, 0.53, 0.67)}
    entry = {"a": STUDENT, "b": PLAIN, "meaning": "value of distillation", "metric": "c_index"}
    entry |= {"value": 0.02, "low": -0.01, "high": 0.05, "p": 0.2, "p_holm": 0.4, "verdict": "no difference shown"}
    return {
        "name": "survival",
        "headline": METRIC,
        "report": {
            "type": "survival",
            "confidence": 0.95,
            "folds": [0, 1],
            "seeds": [0],
            "warnings": [],
            "models": [{"name": name, "inputs": "slide"} for name in models],
            "paired": {"n": 100, "events": 40, "models": models},
        },
        "comparisons": {"primary": [entry]},
        "external": [],
    }


def test_numbers_intervals_and_what_they_are_of(task):
    found = paragraph(task)
    assert found["lead"] == (
        "The disentangled student, which reads the slide alone, reaches a C-index of 0.62 "
        "(95\u00a0% interval 0.55 to 0.70)."
    )
    assert found["tested"].startswith("All models were tested on the same 100 patients (40 events), each by models")
    assert found["shown"] == ["The disentangled student is better than chance (0.5; 1 is perfect)."]
    assert found["not_shown"][0] == (
        "Value of distillation (disentangled student less wsi-only, in C-index): +0.020 (95\u00a0% interval −0.010 to "
        "+0.050; p = 0.20, p = 0.40 after Holm's correction); neither a gain nor its absence is shown."
    )
    assert found["not_shown"][1].startswith("Nothing is shown of other hospitals")


def test_a_model_no_better_than_chance_is_not_praised(task):
    task["report"]["paired"]["models"][STUDENT] = estimate(0.55, 0.48, 0.62)
    found = paragraph(task)
    assert found["shown"] == []
    assert "not shown to be better than chance" in found["not_shown"][0]


def test_a_gain_is_shown_only_where_correction_leaves_it(task):
    entry = task["comparisons"]["primary"][0]
    entry.update(low=0.01, verdict=f"{STUDENT} is better")
    assert f"{STUDENT} is better" in paragraph(task)["shown"][1]
    entry.update(verdict=f"{STUDENT} is ahead, but not after correction")
    found = paragraph(task)
    assert len(found["shown"]) == 1
    assert "is ahead, but not after correction" in found["not_shown"][0]
    entry.update(low=None, high=None)
    assert "it has no interval, so nothing is shown" in paragraph(task)["not_shown"][0]


def test_other_students_are_told_with_their_values(task):
    task["report"]["models"].append({"name": "mirror student", "inputs": "slide"})
    task["report"]["paired"]["models"]["mirror student"] = estimate(0.58, 0.51, 0.65)
    assert "The mirror student (C-index 0.58 (0.51 to 0.65)) is better than chance" in paragraph(task)["shown"][1]


def test_external_cohorts_are_told(task):
    scored = {"n": 30, "models": {STUDENT: estimate(0.57, 0.45, 0.69)}}
    task["external"] = [{"name": "Basel", "scored": scored}]
    found = paragraph(task)
    assert found["shown"][-1].startswith("On the external cohort Basel (30 patients) the disentangled student reaches")
    assert not any("other hospitals" in text for text in found["not_shown"])


def test_tasks_without_numbers(task):
    task["report"]["paired"] = {"n": 0, "events": 0, "models": {}}
    assert "cannot be compared" in paragraph(task)["lead"]
    assert paragraph({"name": "x", "report": None})["lead"] == "It has not been evaluated."


@pytest.fixture
def facts(task):
    return {
        "states": {"ok": 20, "empty": 0, "quarantined": 0},
        "n_slides": 20,
        "lights": {"counts": {"red": 0, "amber": 0, "green": 20}},
        "resolution": {"conflicts": []},
        "transcriptome": {"warnings": []},
        "audit": {"state": "ok", "findings": []},
        "tasks": [task],
        "pretraining": [{"warnings": []}],
        "cohort": {
            "patients": 20,
            "both": 18,
            "sites": 2,
            "folds": {"n": 5, "repeats": 2, "smallest": 4, "largest": 4},
        },
        "encoder": "uni",
        "source": "extract",
    }


def states(facts):
    return {row["name"]: row["state"] for row in checks(facts)}


def test_everything_fine(facts):
    assert set(states(facts).values()) == {FINE}
    assert cohort_line(facts) == (
        "20 patients (18 with slide and transcriptome), 20 slides, 2 sites and 5 folds of 4 patients, 2 times over; "
        "slides described by the encoder uni."
    )


@pytest.mark.parametrize(
    ("name", "key", "value", "state"),
    [
        ("Slides", "states", {"ok": 19, "empty": 0, "quarantined": 1}, LOOK),
        ("Slides", "states", {"ok": 17, "empty": 1, "quarantined": 2}, BAD),
        ("Slides", "n_slides", 0, NONE),
        ("Slide quality", "lights", {"counts": {"red": 1, "amber": 0, "green": 19}}, LOOK),
        ("Slide quality", "lights", {"counts": {"red": 11, "amber": 0, "green": 9}}, BAD),
        ("Slide quality", "resolution", {"conflicts": [("s", "text")]}, LOOK),
        ("Slide quality", "lights", None, NONE),
        ("Transcriptome", "transcriptome", {"warnings": ["few genes", "odd"]}, LOOK),
        ("Transcriptome", "transcriptome", None, NONE),
        ("Leakage audit", "audit", {"state": "leak", "findings": [{"leak": True}]}, BAD),
        ("Leakage audit", "audit", {"state": "warned", "findings": [{"leak": False}]}, LOOK),
        ("Leakage audit", "audit", None, NONE),
        ("Pre-training", "pretraining", [{"warnings": ["looks collapsed"]}], LOOK),
        ("Task survival", "tasks", [{"name": "survival", "report": None}], NONE),
        ("Task survival", "tasks", [{"name": "survival", "report": {"warnings": ["few events"]}}], LOOK),
    ],
)
def test_one_thing_wrong_changes_its_own_light_alone(facts, name, key, value, state):
    before = states(facts)
    after = states(copy.deepcopy(facts) | {key: value})
    assert after == before | {name: state}

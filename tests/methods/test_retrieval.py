"""Retrieval average: whose transcriptomes stand in for a slide's own."""

from __future__ import annotations

import numpy as np
import pytest

from histill.cohort.tasks import Task
from histill.data.fold import Labels
from histill.methods.baselines.retrieval import RetrievalModel

OPTIONS = {"components": 4, "alphas": [0.1, 1.0]}
LABELS = Labels(Task("dx", "classification", ("dx",), 0), ["a", "b"], weights=np.array([1.0, 1.0]))


@pytest.fixture
def cohort():
    """Slides in four places; genes, and so the class, are those of the place."""
    generator = np.random.default_rng(0)
    place = np.arange(40) % 4
    slides = 5 * np.eye(4)[place] + 0.1 * generator.normal(size=(40, 4))
    genes = np.where(place[:, None] < 2, 1.0, -1.0) + 0.1 * generator.normal(size=(40, 6))
    return {"slide": slides, "rna": genes}, ["ab"[index // 2] for index in place], place


def fitted(cohort, **options) -> RetrievalModel:
    inputs, targets, _ = cohort
    known = {"cases": np.arange(100, 140), "neighbours": 3, **options}
    return RetrievalModel.fit(inputs, LABELS, targets, OPTIONS, **known)


def test_slides_are_judged_by_the_genes_of_those_alike(cohort):
    predicted = fitted(cohort).predict({"slide": 5 * np.eye(4)}, cases=np.full(4, -1))
    assert ["ab"[row.argmax()] for row in predicted] == ["a", "a", "b", "b"]
    np.testing.assert_allclose(predicted.sum(axis=1), 1)


def test_a_training_patient_does_not_borrow_from_itself(cohort):
    inputs, _, _ = cohort
    model = fitted(cohort, neighbours=1)
    itself = model.predict({"slide": inputs["slide"]}, cases=np.full(40, -1))
    np.testing.assert_allclose(itself, model.judge.predict({"rna": inputs["rna"]}))
    assert not np.isclose(model.predict({"slide": inputs["slide"]}, cases=model.cases), itself).all(axis=1).any()


def test_more_neighbours_than_patients_are_all_others(cohort):
    inputs, _, _ = cohort
    one = {"slide": inputs["slide"][:1]}
    first, second = (fitted(cohort, neighbours=n).predict(one, cases=np.array([100])) for n in (39, 1000))
    np.testing.assert_array_equal(first, second)


def test_a_stored_model_predicts_the_same(cohort):
    inputs, _, _ = cohort
    model = fitted(cohort)
    again = RetrievalModel.from_state(model.state())
    slides = {"slide": inputs["slide"]}
    np.testing.assert_array_equal(model.predict(slides, cases=model.cases), again.predict(slides, cases=again.cases))


def test_the_order_of_the_cohort_does_not_matter(cohort):
    inputs, targets, _ = cohort
    inputs = {**inputs, "slide": np.repeat(inputs["slide"][:4], 10, axis=0)}  # ties
    targets = sorted(targets)
    inputs["rna"] = inputs["rna"][np.argsort(np.arange(40) % 4 // 2, kind="stable")]
    order = np.random.default_rng(1).permutation(40)
    first = RetrievalModel.fit(inputs, LABELS, targets, OPTIONS, cases=np.arange(40), neighbours=3)
    second = RetrievalModel.fit(
        {name: rows[order] for name, rows in inputs.items()},
        LABELS,
        [targets[index] for index in order],
        OPTIONS,
        cases=order,
        neighbours=3,
    )
    query = {"slide": inputs["slide"][:5]}
    nobody = np.full(5, -1)
    np.testing.assert_allclose(
        first.predict(query, cases=nobody).argmax(1), second.predict(query, cases=nobody).argmax(1)
    )

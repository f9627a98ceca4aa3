import json

import numpy as np
import pytest

from histill.slides import stain

WHITE = np.full(3, 240.0)
DAB = np.array([0.27, 0.57, 0.78])


def mixture(vectors, seed=0, number=20_000, white=WHITE, noise=1.0):
    """Pixels [n, 3] of tissue: some nuclei, some fibres, much of both."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(1.5, (0.5, 0.35), (number, 2)) * (random.random((number, 2)) > 0.15)
    light = white * np.exp(-amounts @ np.array(vectors)) + random.normal(0, noise, (number, 3))
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def degrees(one, other):
    return np.degrees(np.arccos(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)))


@pytest.mark.parametrize(
    "vectors",
    [stain.REFERENCE, [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], [[0.49, 0.77, 0.41], [0.15, 0.77, 0.62]]],
)
def test_the_vectors_of_a_mixture_are_found(vectors):
    found = stain.statistics(mixture(vectors), WHITE)["macenko"]
    assert degrees(found["haematoxylin"], vectors[0]) < 4
    assert degrees(found["eosin"], vectors[1]) < 4
    assert np.linalg.norm(found["eosin"]) == pytest.approx(1, abs=1e-3)


def test_the_reference_is_usual_and_its_glass_makes_no_difference():
    found = stain.statistics(mixture(stain.REFERENCE), WHITE)
    assert found["unusual"] == []
    yellow = np.array([248.0, 240.0, 215.0])
    tinted = stain.statistics(mixture(stain.REFERENCE, white=yellow), yellow)
    assert degrees(found["macenko"]["eosin"], tinted["macenko"]["eosin"]) < 2
    np.testing.assert_allclose(found["lab"]["mean"], tinted["lab"]["mean"], atol=1.5)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((0, 3), np.uint8), "only 0 stained pixels"),
        (np.full((9000, 3), 240, np.uint8), "only 0 stained pixels"),
        (np.full((9000, 3), 140, np.uint8), "the same colour"),
        (np.zeros((9000, 3), np.uint8), "the same colour"),
        (mixture(stain.REFERENCE)[:300], "stained pixels"),
        (mixture([stain.REFERENCE[0], stain.REFERENCE[0]], noise=0), "one stain"),
        (mixture([stain.REFERENCE[1], [0, 0, 1e-6]], noise=0), "one stain"),
    ],
)
def test_what_cannot_be_fitted_has_a_reason(pixels, reason):
    found = stain.statistics(pixels, WHITE)
    assert found["macenko"] is None
    assert reason in found["reason"]
    json.dumps(found, allow_nan=False)


def test_other_stains_are_unusual():
    brown = stain.statistics(mixture([[0.65, 0.70, 0.29], DAB]), WHITE)
    assert any("eosin" in text for text in brown["unusual"])
    faint = stain.statistics(mixture(stain.REFERENCE * 0.15, noise=0.5), WHITE)
    assert faint["macenko"] is None or any("pale" in text for text in faint["unusual"])


@pytest.mark.parametrize("seed", range(4))
def test_any_pixels_give_finite_numbers(seed):
    random = np.random.default_rng(seed)
    low, high = np.sort(random.integers(0, 256, 2))
    pixels = random.integers(low, high + 1, (3000, 3)).astype(np.uint8)
    for glass in (WHITE, np.array([0.0, 1.0, 255.0])):
        json.dumps(stain.statistics(pixels, glass), allow_nan=False)

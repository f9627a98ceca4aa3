"""What predictions are held against: distances of slides of the cohort and of others, calibration, percentiles."""

from __future__ import annotations

import numpy as np
import pytest

from histill.bundle.calibration import ClassCalibration, SurvivalCalibration
from histill.bundle.reference import LIMIT, Appearance, Reference
from histill.errors import HistillError

TIMES = np.array([2.0, 5.0, 10.0])


def cohort(generator, patients, width, directions=5):
    """Function that draws mean features [N, F] of patients of one cohort."""
    loadings = generator.normal(size=(directions, width))
    centre = generator.normal(size=width)

    def draw(count=patients):
        return (
            centre + generator.normal(size=(count, directions)) @ loadings + 0.3 * generator.normal(size=(count, width))
        )

    return draw


def reference(means, folds=4, outputs=None, calibrate=None):
    patients = len(next(iter(means.values())))
    outputs = np.linspace(-2, 2, patients)[:, None] if outputs is None else outputs
    calibrate = calibrate or SurvivalCalibration(np.ones(1), TIMES, np.array([0.9, 0.7, 0.5]))
    return Reference.fit(means, [np.arange(patients)[fold::folds] for fold in range(folds)], outputs, calibrate)


@pytest.mark.parametrize(("patients", "width"), [(40, 88), (48, 512), (200, 512), (400, 64)])
def test_slides_of_the_cohort_are_inside_and_others_outside(patients, width):
    """With fewer patients than features too, where a covariance fitted on all patients would mark half of new ones."""
    inside, outside = [], []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        draw = cohort(generator, patients, width)
        own = reference({"10x": draw()})
        inside += [own.out_of_distribution({"10x": row})["outside"] for row in draw(100)]
        shifted = draw(20) + generator.normal(size=width)
        outside += [own.out_of_distribution({"10x": row})["outside"] for row in shifted]
    assert np.mean(inside) < 0.07
    assert np.mean(outside) == 1


def test_percentiles_of_distances_are_those_of_new_patients():
    draw = cohort(np.random.default_rng(0), 400, 32)
    own = reference({"10x": draw()}, folds=10)
    found = np.array([own.out_of_distribution({"10x": row})["percentile"] for row in draw(1000)])
    for percent in (25, 50, 75, 90):
        assert abs((found <= percent).mean() - percent / 100) < 0.08


def test_a_score_is_one_for_what_it_was_fitted_on():
    means = cohort(np.random.default_rng(1), 300, 40)()
    distances = Appearance.fit(means).distance(means)
    assert np.sqrt((distances**2).mean()) == pytest.approx(1, rel=1e-6)


def test_constant_and_unknown_features_count_nothing():
    generator = np.random.default_rng(2)
    means = cohort(generator, 60, 20)()
    means[:, 3], means[::7, 5] = 4.0, np.nan
    own = Appearance.fit(means)
    row = means[:1].copy()
    before = own.distance(row)
    row[0, 3] = 99.0
    np.testing.assert_allclose(own.distance(row), before)
    row[0, 6] = np.nan
    assert np.isfinite(own.distance(row)).all()
    plain = Appearance.fit(means[:, :3])
    assert plain.distance(plain.centre[None])[0] == 0


def test_a_missing_magnification_is_left_out():
    draw = cohort(np.random.default_rng(3), 60, 20)
    means = {"10x": draw(), "20x": draw()}
    means["10x"][5] = np.nan
    own = reference(means)
    alone = own.out_of_distribution({"20x": means["20x"][0]})
    assert np.isfinite(alone["score"])
    for wrong in ({}, {"40x": means["20x"][0]}, {"10x": means["10x"][0][:7]}):
        with pytest.raises(HistillError, match="cannot be held against"):
            own.out_of_distribution(wrong)


def test_patients_and_magnifications_without_tiles_do_not_thin_the_distance():
    draw = cohort(np.random.default_rng(7), 60, 20)
    means = {"20x": draw()}
    alone = reference(means)
    never = reference({"10x": np.full((60, 20), np.nan), **means})
    row = draw(1)[0] + 5
    assert never.out_of_distribution({"10x": row, "20x": row}) == alone.out_of_distribution({"20x": row})
    half = means["20x"].copy()
    half[::2] = np.nan
    np.testing.assert_array_equal(
        Appearance.fit(half).distance(half[1::2]), Appearance.fit(half[1::2]).distance(half[1::2])
    )


def test_too_few_patients_are_refused():
    means = {"10x": np.random.default_rng(0).normal(size=(4, 5))}
    with pytest.raises(HistillError, match="fold tests 2 patients, of 4"):
        Reference.fit(means, [np.array([0, 1])], np.zeros((4, 1)), SurvivalCalibration(np.ones(1), TIMES, np.ones(3)))


def test_no_patient_can_be_read_from_it():
    """Of 40 patients at 512 features: what is kept of each fold has fewer directions than patients."""
    means = cohort(np.random.default_rng(4), 40, 512)()
    state = reference({"10x": means}).state()
    kept = {name.rpartition(".")[2]: value for name, value in state.items() if name.startswith("appearance.0")}
    assert len(kept["directions"]) == 30 // 4
    scaled = (means - kept["centre"]) / kept["scale"]
    explained = np.linalg.norm(scaled @ kept["directions"].T, axis=1) / np.linalg.norm(scaled, axis=1)
    assert explained.max() < 0.999


@pytest.mark.parametrize("slope", [0.4, 1.0, 2.5])
def test_calibration_of_classes_finds_the_slope_and_the_prevalence(slope):
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(40_000, 3))
    true = np.exp(slope * logits + [0.7, -0.4, 0.0])
    true /= true.sum(axis=1, keepdims=True)
    label = (generator.random((len(true), 1)) > true.cumsum(axis=1)).sum(axis=1)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = ClassCalibration.fit(said, label)
    assert own.slope[0] == pytest.approx(slope, rel=0.05)
    np.testing.assert_allclose(own.bias, [0.7, -0.4, 0.0], atol=0.06)
    np.testing.assert_allclose(own(said).mean(axis=0), np.bincount(label) / len(label), atol=1e-3)


def test_calibration_of_two_classes_is_platts():
    """As scikit-learn's sigmoid calibration, which fits Platt's targets on decision values."""
    from sklearn.calibration import _SigmoidCalibration

    generator = np.random.default_rng(6)
    logit = generator.normal(size=200)
    label = (generator.random(200) < 1 / (1 + np.exp(0.5 - 2 * logit))).astype(int)
    said = 1 / (1 + np.exp(-logit))
    own = ClassCalibration.fit(np.stack([1 - said, said], axis=1), label)
    wanted = _SigmoidCalibration().fit(logit, label).predict(logit)
    np.testing.assert_allclose(own(np.stack([1 - said, said], axis=1))[:, 1], wanted, atol=2e-3)


def test_calibration_neither_turns_round_nor_runs_away():
    said = np.stack([np.linspace(0.05, 0.95, 20), np.linspace(0.95, 0.05, 20)], axis=1)
    right = (said[:, 1] > 0.5).astype(int)
    sure, turned = ClassCalibration.fit(said, right), ClassCalibration.fit(said, 1 - right)
    assert 0.9 < sure(said).max() < 0.999
    assert turned.slope[0] == 0
    np.testing.assert_allclose(turned(said), 0.5, atol=1e-3)


def followed(generator, count, slope):
    risk = generator.normal(size=count)
    time = generator.exponential(10 * np.exp(-slope * risk))
    censored = generator.exponential(15.0, size=count)
    return risk, np.minimum(time, censored), (time <= censored).astype(int)


def test_calibration_of_survival_finds_the_hazard_ratio_and_the_baseline():
    own = SurvivalCalibration.fit(*followed(np.random.default_rng(7), 5000, 0.8), TIMES)
    assert own.slope[0] == pytest.approx(0.8, rel=0.05)
    np.testing.assert_allclose(own.baseline, np.exp(-TIMES / 10), atol=0.03)
    np.testing.assert_allclose(own(1.0), np.exp(-TIMES / 10 * np.exp(0.8)), atol=0.03)
    assert own(np.zeros((2, 4))).shape == (2, 4, 3)


def test_calibration_of_survival_is_that_of_scikit_survival():
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    risk, time, event = followed(np.random.default_rng(8), 300, 0.5)
    own = SurvivalCalibration.fit(risk, time, event, TIMES)
    model = CoxPHSurvivalAnalysis(alpha=0.01, ties="efron").fit(risk[:, None], Surv.from_arrays(event == 1, time))
    wanted = np.stack([step(TIMES) for step in model.predict_survival_function(risk[:5, None])])
    np.testing.assert_allclose(own(risk[:5]), wanted, rtol=1e-9)


@pytest.mark.parametrize("sign", [-1, 0])
def test_a_model_that_ranks_nobody_gives_everybody_the_survival_of_the_cohort(sign):
    risk, time, event = followed(np.random.default_rng(9), 400, 0.8)
    own = SurvivalCalibration.fit(sign * risk, time, event, TIMES)
    assert own.slope[0] == 0
    np.testing.assert_array_equal(own(3.0), own(-3.0))
    assert (np.diff(own.baseline) < 0).all()


def test_percentiles_of_outputs():
    generator = np.random.default_rng(10)
    means = {"10x": generator.normal(size=(100, 4))}
    own = reference(means, outputs=np.arange(100.0)[:, None])
    np.testing.assert_allclose(own.percentile(np.array([-5.0, 24.75, 49.5, 200.0])), [0, 25, 50, 100])
    said = generator.dirichlet([1, 1, 1], size=100)
    of_classes = reference(means, outputs=said, calibrate=ClassCalibration(np.ones(1), np.zeros(3)))
    assert of_classes.percentile(said[:5]).shape == (5, 3)
    np.testing.assert_allclose(of_classes.percentile(np.median(said, axis=0)), 50, atol=0.5)


@pytest.mark.parametrize("kind", ["survival", "classes"])
def test_it_is_the_same_after_writing_and_reading(tmp_path, kind):
    from safetensors.numpy import load_file, save_file

    draw = cohort(np.random.default_rng(11), 30, 12)
    calibrate = ClassCalibration(np.array([1.5]), np.array([0.2, 0.0])) if kind == "classes" else None
    outputs = np.random.default_rng(0).dirichlet([1, 1], size=30) if kind == "classes" else None
    own = reference({"10x": draw(), "slide.v2": draw()}, outputs=outputs, calibrate=calibrate)
    save_file({name: np.ascontiguousarray(value) for name, value in own.state().items()}, tmp_path / "r.safetensors")
    again = Reference.from_state(load_file(tmp_path / "r.safetensors"))
    row = {"10x": draw(1)[0], "slide.v2": draw(1)[0]}
    assert again.out_of_distribution(row) == own.out_of_distribution(row)
    values = np.array([0.3, 0.7])
    np.testing.assert_array_equal(again.percentile(values), own.percentile(values))
    np.testing.assert_array_equal(again.calibrate(values), own.calibrate(values))
    assert own.threshold == pytest.approx(np.interp(LIMIT, np.linspace(0.01, 0.99, 99), own.distances))

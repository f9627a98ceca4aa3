"""Scores of folds, repeats and external patients; resamples of patients; survival at horizons against the library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from histill.evaluation import horizons
from histill.evaluation.predictions import Curves, Predictions
from histill.evaluation.sampling import Sample, by_fold
from histill.evaluation.scoring import horizon_key, score, survival_at
from tests.evaluation import synthetic


def _always(weights):
    return np.ones(len(weights), bool)


def test_a_patient_is_drawn_equally_often_in_every_fold_that_tests_it():
    _, outcomes, _ = synthetic.survival({}, patients=30, folds=3, repeats=2)
    folds = by_fold(set(outcomes.values), outcomes)
    sample = Sample.draw(folds, dict.fromkeys(folds, _always), 50, 1)
    drawn: dict[str, np.ndarray] = {}
    for fold, members in folds.items():
        for patient, counts in zip(members, sample.weights[fold].T, strict=True):
            assert (drawn.setdefault(patient, counts) == counts).all()
    assert len(drawn) == 30
    first = Sample.draw({fold: folds[fold] for fold in (0, 1, 2)}, dict.fromkeys(folds, _always), 50, 1)
    assert all((first.weights[fold] == sample.weights[fold]).all() for fold in (0, 1, 2))
    assert all((sample.weights[fold].sum(1) == len(folds[fold])).all() for fold in (0, 1, 2))


def test_repeats_do_not_narrow_the_interval_of_a_model_that_is_always_the_same():
    """The same predictions in every repeat are no new patients."""
    widths = []
    for repeats in (1, 4):
        models, outcomes, risk = synthetic.survival({"abmil": 1.0}, patients=150, folds=2, repeats=repeats)
        for rows in models[0].test.values():
            rows.update({patient: np.array([risk[patient] + hash_noise(patient)]) for patient in rows})
        low, high = (
            score(models, set(outcomes.values), outcomes, [0], 500, 1).estimates["abmil"]["c_index"].interval(0.95)
        )
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def hash_noise(patient):
    return np.random.default_rng(int(patient[1:])).standard_normal()


def test_survival_metrics_of_a_run_are_those_of_scikit_survival():
    from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
    from sksurv.util import Surv

    models, outcomes, _ = synthetic.survival({"abmil": 0.8}, patients=150, folds=3)
    chosen = horizons.choose(outcomes, None, models)
    found = score(models, set(outcomes.values), outcomes, [0], 100, 1, chosen).estimates["abmil"]
    grid = np.linspace(chosen.times[0], chosen.times[-1], 50)
    for fold, members in outcomes.tested.items():
        seen, event = np.array([outcomes.values[p] for p in outcomes.values if p not in members]).T
        train = Surv.from_arrays(event == 1, seen)
        time, event = np.array([outcomes.values[p] for p in members]).T
        # The library refuses patients followed beyond all in training; what happens after the horizons changes nothing.
        time, event = np.minimum(time, 0.99 * seen.max()), np.where(time < 0.99 * seen.max(), event, 0)
        test = Surv.from_arrays(event == 1, time)
        risk = np.array([models[0].test[fold, 0][p][0] for p in members])
        uno = concordance_index_ipcw(train, test, risk, tau=chosen.times[-1])[0]
        areas, mean = cumulative_dynamic_auc(train, test, risk, chosen.times)
        curves = survival_at(models[0].survival[fold, 0], members, grid)
        ibs = integrated_brier_score(train, test, curves, grid)
        at_end = brier_score(train, test, curves[:, -1:], grid[-1:])[1][0]
        expected = {"uno_c": uno, "td_auc": mean, "ibs": ibs, horizon_key("brier", chosen.times[-1]): at_end}
        expected |= {horizon_key("auc", t): area for t, area in zip(chosen.times, areas, strict=True)}
        for key, value in expected.items():
            assert found[key].folds[fold] == pytest.approx(value, abs=1e-9), key
    assert found["ibs"].interval(0.95)[0] < found["ibs"].value < found["ibs"].interval(0.95)[1]


def test_a_model_that_sees_more_is_better_by_every_metric():
    models, outcomes, _ = synthetic.survival({"abmil": 0.95, "wsi-only": 0.2}, patients=300)
    chosen = horizons.choose(outcomes, None, models)
    good, bad = score(models, set(outcomes.values), outcomes, [0], 100, 1, chosen).estimates.values()
    for key in ("c_index", "uno_c", "td_auc"):
        assert good[key].value > bad[key].value
    assert good["ibs"].value < bad["ibs"].value


def test_a_fold_whose_model_ends_before_a_horizon_is_left_out_of_the_brier_score_alone():
    models, outcomes, _ = synthetic.survival({"abmil": 0.8})
    short = models[0].survival[1, 0]
    models[0].survival[1, 0] = Curves(short.times[:1], {p: values[:1] for p, values in short.values.items()})
    chosen = horizons.choose(outcomes, [10.0, 20.0], models)
    found = score(models, set(outcomes.values), outcomes, [0], 100, 1, chosen).estimates["abmil"]
    assert np.isnan(found["ibs"].folds[1])
    assert np.isnan(found[horizon_key("brier", 20.0)].folds[1])
    assert np.isfinite(found[horizon_key("brier", 10.0)].folds[1])
    assert np.isfinite([found["td_auc"].folds[1], found["ibs"].value, *found["ibs"].interval(0.95)]).all()


def test_predictions_without_curves_have_no_brier_score():
    models, outcomes, _ = synthetic.survival({"abmil": 0.8})
    models[0].survival.clear()
    chosen = horizons.choose(outcomes, None, models)
    found = score(models, set(outcomes.values), outcomes, [0], 100, 1, chosen).estimates["abmil"]
    assert np.isnan(found["ibs"].value)
    assert found["ibs"].plain(0.95)["low"] is None
    assert np.isfinite(found["td_auc"].value)


def test_the_calibration_slope_is_of_all_folds_together():
    models, outcomes = synthetic.classes({"abmil": 2.0}, patients=900)
    found = score(models, set(outcomes.values), outcomes, [0], 200, 1).estimates["abmil"]["calibration_slope"]
    assert found.value == pytest.approx(0.5, abs=0.1)
    assert found.interval(0.95)[0] < 0.5 < found.interval(0.95)[1]
    assert len(found.folds) == 3
    assert found.value != pytest.approx(np.mean(list(found.folds.values())), abs=1e-6)


def test_no_patients_give_undefined_values():
    for models, outcomes in (synthetic.survival({"abmil": 1.0})[:2], synthetic.classes({"abmil": 1.0})):
        found = score(models, set(), outcomes, [0], 100, 1).estimates["abmil"]
        assert all(estimate.plain(0.95)["value"] is None for estimate in found.values())


def test_external_patients_are_scored_by_the_models_of_every_fold():
    models, outcomes, risk = synthetic.survival({"abmil": 1.0}, patients=90)
    outside = sorted(outcomes.values)[::3]
    folds = {patient: [-2] if patient in outside else own for patient, own in outcomes.assignment.items()}
    whole = replace(outcomes, assignment=folds)
    external = {key: {p: np.array([risk[p]]) for p in outside} for key in models[0].test}
    model = Predictions(models[0].model, models[0].test, external=external).of_external()
    values = whole.of_external()
    assert values.external == []
    found = score([model], set(outside), values, [0], 200, 1)
    assert set(found.patients) == {0, 1, 2}
    assert all((found.sample.weights[fold] == found.sample.weights[0]).all() for fold in (1, 2))
    estimate = found.estimates["abmil"]["c_index"]
    assert len(set(estimate.folds.values())) == 1
    assert estimate.interval(0.95)[0] < estimate.value

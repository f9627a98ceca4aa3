from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.estimator_checks import check_estimator

from histill.data.labels import class_weights, survival_bin, survival_edges
from histill.data.scaling import VarianceFilter, WinsorizedScaler


def test_training_data_are_standardised():
    x = np.random.default_rng(0).normal(5, 3, (2000, 4))
    scaled = WinsorizedScaler().fit(x).transform(x)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)


def test_one_outlier_does_not_flatten_a_feature():
    x = np.random.default_rng(0).normal(size=(400, 1))
    x[7] = 7000.0
    scaled = WinsorizedScaler().fit(x).transform(x)
    assert np.delete(scaled, 7).std() > 0.9
    assert np.abs(scaled).max() <= 5


def test_unknown_values_get_the_median_and_new_extremes_are_clipped():
    x = np.array([[1.0], [2.0], [3.0], [np.nan]])
    scaler = WinsorizedScaler().fit(x)
    np.testing.assert_array_equal(scaler.transform([[np.nan]]), scaler.transform([[2.0]]))
    np.testing.assert_array_equal(scaler.transform([[1e9]]), scaler.transform([[scaler.high_[0]]]))


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.floats(width=32)))
def test_always_finite(x):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        scaled = WinsorizedScaler().fit(np.where(np.abs(x) < 1e30, x, np.nan)).transform(x)
    assert np.isfinite(scaled).all()


def test_constant_and_unknown_features_become_zero():
    x = np.column_stack([np.full(10, 0.1), np.full(10, np.nan), np.full(10, 1e7)])
    assert not WinsorizedScaler().fit(x).transform(x).any()


def test_state_round_trip():
    x = np.random.default_rng(0).normal(size=(50, 3))
    scaler = WinsorizedScaler(clip=2).fit(x)
    again = WinsorizedScaler.from_state(scaler.state())
    np.testing.assert_array_equal(scaler.transform(3 * x), again.transform(3 * x))


@pytest.mark.parametrize(
    ("estimator", "differs"),
    [
        (VarianceFilter(), {}),
        (
            WinsorizedScaler(),
            {
                "check_estimators_nan_inf": "infinite values are unknown values",
                "check_transformer_preserve_dtypes": "networks read float32",
            },
        ),
    ],
)
def test_estimators_are_scikit_learns(estimator, differs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator, expected_failed_checks=differs)


def test_outliers_are_counted_against_the_training_deviation():
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[:, 1] = 1.0
    scaler = WinsorizedScaler(clip=6).fit(x)
    new = np.array([[0.0, 1.0], [50.0, 99.0], [-7.0, 1.0]])
    assert scaler.outliers(new).tolist() == [[False, False], [True, False], [True, False]]


def spread(*deviations):
    return np.random.default_rng(0).normal(size=(200, len(deviations))) * deviations


def test_most_variable_features_are_kept_in_their_order():
    assert VarianceFilter(top=0.5).fit(spread(3, 1, 2, 0)).support_.tolist() == [True, False, True, False]


def test_variance_of_one_outlier_does_not_count():
    x = spread(1, 0.1)
    x[5, 1] = 1e4
    assert VarianceFilter(top=0.5).fit(x).support_.tolist() == [True, False]


def test_features_of_low_variance_go_but_never_all():
    x = spread(3, 0, 1)
    assert VarianceFilter(minimum=0.5).fit(x).support_.tolist() == [True, False, True]
    assert VarianceFilter(minimum=100).fit(x).support_.tolist() == [True, False, False]
    assert VarianceFilter().fit(x).support_.all()


def test_state_of_the_filter():
    variable = VarianceFilter(top=0.7, minimum=0.1).fit(spread(3, 1, 2, 0))
    again = VarianceFilter.from_state(variable.state())
    assert (again.top, again.minimum) == (0.7, 0.1)
    np.testing.assert_array_equal(again.transform(spread(1, 1, 1, 1)), variable.transform(spread(1, 1, 1, 1)))


def test_survival_edges_are_quantiles_of_events():
    time = np.arange(1.0, 101.0)
    event = (np.arange(100) % 2 == 0).astype(int)
    edges = survival_edges(time, event, 4)
    bins = survival_bin(time[event == 1], edges)
    assert np.bincount(bins).min() >= 12
    assert survival_bin(np.array([0.0, edges[0], 1e9]), edges).tolist() == [0, 1, 3]


def test_tied_times_give_fewer_bins():
    assert len(survival_edges(np.ones(20), np.ones(20), 4)) == 1


def test_class_weights_balance():
    labels = np.array([0, 0, 0, 1])
    weights = class_weights(labels, 3)
    assert weights[2] == 0
    assert weights[0] * 3 == pytest.approx(weights[1])

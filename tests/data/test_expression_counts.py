from __future__ import annotations

import numpy as np
import pytest
from rnanorm import TMM, UQ

from histill.data.expression_counts import CountNormaliser
from histill.errors import HistillError

METHODS = {"tmm": TMM, "upper_quartile": UQ}


def counts(samples=30, genes=500, seed=0):
    """Negative-binomial counts: depths differ, some genes are rare, and in every third sample a few take most reads."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(3, 2, genes)) * np.exp(rng.normal(0, 0.5, (samples, 1)))
    mean[::3, :5] *= 300
    return rng.poisson(rng.gamma(4, mean / 4)).astype(float)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def test_training_samples_are_normalised_as_rnanorm_does(method):
    x = counts()
    expected = METHODS[method]().fit(x).transform(x)
    np.testing.assert_allclose(CountNormaliser(method).fit_transform(x), np.log2(expected + 1), rtol=1e-12)


def test_composition_is_corrected(method):
    x = counts()
    logs = CountNormaliser(method).fit_transform(x)[:, 5:]
    cpm = np.log2(x / x.sum(axis=1, keepdims=True) * 1e6 + 1)[:, 5:]
    shifts = [np.median(values[::3]) - np.median(np.delete(values, np.s_[::3], axis=0)) for values in (logs, cpm)]
    assert abs(shifts[0]) < 0.2 < abs(shifts[1])


def test_a_new_sample_does_not_depend_on_its_neighbours(method):
    normaliser = CountNormaliser(method).fit(counts())
    new = counts(8, seed=1)
    together = normaliser.transform(new)
    alone = np.vstack([normaliser.transform(new[row : row + 1]) for row in range(8)])
    np.testing.assert_array_equal(alone, together)


def test_blocks_do_not_show(method, monkeypatch):
    x = counts()
    whole = CountNormaliser(method).fit(x)
    monkeypatch.setattr("histill.data.expression_counts._ROWS", 7)
    blocks = CountNormaliser(method).fit(x)
    np.testing.assert_array_equal(blocks.reference_, whole.reference_)
    np.testing.assert_allclose(blocks.library(x), whole.library(x), rtol=1e-12)


def test_depth_does_not_matter_to_upper_quartiles():
    """TMM weighs genes by their counts, so it is not exactly so there."""
    normaliser = CountNormaliser("upper_quartile").fit(counts())
    new = counts(4, seed=1)
    np.testing.assert_allclose(normaliser.library(7 * new), 7 * normaliser.library(new), rtol=1e-12)


def test_genes_that_are_not_measured(method):
    """A table without every tenth gene gets nearly the same library sizes, and NaN for these genes."""
    normaliser = CountNormaliser(method).fit(counts())
    new = counts(6, seed=1)
    fewer = new.copy()
    fewer[:, 5::10] = np.nan
    np.testing.assert_allclose(normaliser.library(fewer), normaliser.library(new), rtol=0.1)
    missing = np.isnan(normaliser.transform(fewer))
    assert missing[:, 5::10].all()
    assert missing.sum() == 6 * 50


def test_genes_unseen_in_training_are_normalised_and_count_in_no_factor(method):
    x = counts()
    x[:, 0] = 0
    normaliser = CountNormaliser(method).fit(x)
    new = counts(5, seed=1)
    changed = new.copy()
    changed[:, 0] = 1e9
    np.testing.assert_array_equal(normaliser.library(changed), normaliser.library(new))
    assert normaliser.transform(changed)[:, 0].min() > 20


def test_state_round_trip(method):
    normaliser = CountNormaliser(method).fit(counts())
    again = CountNormaliser.from_state(normaliser.state())
    assert again.method == method
    np.testing.assert_array_equal(again.transform(counts(seed=2)), normaliser.transform(counts(seed=2)))


@pytest.mark.parametrize(
    ("where", "value", "message"), [((0, 0), -1, "1 counts are negative"), (3, 0, "a sample holds no reads")]
)
def test_no_counts(where, value, message):
    x = counts()
    x[where] = value
    with pytest.raises(HistillError, match=message):
        CountNormaliser().fit(x)


def test_genes_missing_in_some_samples_only():
    x = counts()
    normaliser = CountNormaliser().fit(x)
    x[2, 3] = np.nan
    with pytest.raises(HistillError, match="in some samples only"):
        normaliser.transform(x)
    with pytest.raises(ValueError, match="NaN"):
        normaliser.fit(x)


def test_unknown_method():
    with pytest.raises(HistillError, match="no normalisation 'quantile'"):
        CountNormaliser("quantile").fit(counts())

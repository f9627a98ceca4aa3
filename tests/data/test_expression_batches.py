from __future__ import annotations

import numpy as np
import pandas
import pytest
import sklearn
from neuroCombat import neuroCombat
from sklearn.pipeline import make_pipeline

from histill.data.expression_batches import ComBat
from histill.data.scaling import WinsorizedScaler
from histill.errors import HistillError

GENES = 200


def cohort(sizes=(("a", 60), ("b", 40), ("c", 50)), seed=0):
    """Expression [N, G] of batches that differ in mean and spread, and the batch of each sample."""
    rng = np.random.default_rng(0)
    base = rng.normal(6, 2, GENES)
    offset = {name: rng.normal(rng.normal(0, 1.5), 0.5, GENES) for name in "abcd"}
    spread = {name: np.exp(rng.normal(rng.normal(0, 0.3), 0.2, GENES)) for name in "abcd"}
    rng = np.random.default_rng(seed)
    batch = [name for name, size in sizes for _ in range(size)]
    noise = rng.normal(size=(len(batch), GENES))
    return np.array([base + offset[name] + spread[name] * z for name, z in zip(batch, noise, strict=True)]), batch


def between(x, batch):
    """Mean over genes of the variance of batch means, relative to all variance."""
    names = np.array(batch)
    means = np.array([x[names == name].mean(axis=0) for name in sorted(set(batch))])
    return float((means.var(axis=0) / x.var(axis=0)).mean())


def test_training_samples_are_corrected_as_neurocombat_does():
    x, batch = cohort()
    expected = neuroCombat(x.T, pandas.DataFrame({"batch": batch}), "batch")["data"].T
    combat = ComBat().fit(x, batch=batch)
    np.testing.assert_allclose(combat.transform(x, batch=batch), expected, rtol=1e-10)
    assert combat.batches_.tolist() == ["a", "b", "c"]


def test_new_patients_of_known_batches_are_corrected():
    combat = ComBat().fit(*cohort()[:1], batch=cohort()[1])
    x, batch = cohort(seed=7)
    corrected = combat.transform(x, batch=batch)
    assert between(x, batch) > 0.3
    assert between(corrected, batch) < 0.03
    one = combat.transform(x[100:101], batch=batch[100:101])
    np.testing.assert_array_equal(one, corrected[100:101])


def test_unseen_batches_are_refused_or_left_as_they_are():
    x, batch = cohort()
    new, names = cohort((("a", 2), ("d", 3)), seed=3)
    with pytest.raises(HistillError, match="1 batches have fewer than 3 training samples, such as 'd'") as caught:
        ComBat().fit(x, batch=batch).transform(new, batch=names)
    assert "batch.unseen" in caught.value.mend
    corrected = ComBat(unseen="pass").fit(x, batch=batch).transform(new, batch=names)
    np.testing.assert_array_equal(corrected[2:], new[2:])
    assert (corrected[:2] != new[:2]).all()


def test_small_batches_and_samples_of_no_batch():
    x, batch = cohort((("a", 30), ("b", 30), ("c", 2)))
    names = [*batch[:-1], None]
    with pytest.raises(HistillError, match=r"2 batches .* such as '\(none\)'"):
        ComBat().fit(x, batch=names)
    combat = ComBat(unseen="pass").fit(x, batch=names)
    np.testing.assert_array_equal(combat.transform(x, batch=names)[60:], x[60:])
    alone = ComBat().fit(x[:60], batch=batch[:60])
    np.testing.assert_array_equal(combat.scale_, alone.scale_)


def test_one_batch_has_no_effect_to_estimate():
    x, _ = cohort()
    with pytest.raises(HistillError, match="1 of 1 batches"):
        ComBat().fit(x, batch=["a"] * len(x))


def test_genes_constant_in_a_batch_stay_as_they_are():
    x, batch = cohort()
    x[:60, 4] = 0.0
    combat = ComBat().fit(x, batch=batch)
    corrected = combat.transform(x, batch=batch)
    np.testing.assert_array_equal(corrected[:, 4], x[:, 4])
    others = ComBat().fit(np.delete(x, 4, axis=1), batch=batch)
    np.testing.assert_array_equal(np.delete(combat.scale_, 4, axis=1), others.scale_)


def test_missing_genes_stay_missing():
    x, batch = cohort()
    combat = ComBat().fit(x, batch=batch)
    whole = combat.transform(x, batch=batch)
    x[:, 3] = np.nan
    corrected = combat.transform(x, batch=batch)
    assert np.isnan(corrected[:, 3]).all()
    np.testing.assert_array_equal(np.delete(corrected, 3, axis=1), np.delete(whole, 3, axis=1))


def test_input_is_not_written_to():
    x, batch = cohort()
    before = x.copy()
    ComBat().fit(x, batch=batch).transform(x, batch=batch)
    np.testing.assert_array_equal(x, before)


def test_state_round_trip():
    x, batch = cohort()
    combat = ComBat(unseen="pass", min_samples=5).fit(x, batch=batch)
    again = ComBat.from_state(combat.state())
    assert (again.unseen, again.min_samples) == ("pass", 5)
    new, names = cohort((("c", 3), ("d", 2)), seed=9)
    np.testing.assert_array_equal(again.transform(new, batch=names), combat.transform(new, batch=names))


def test_in_a_pipeline_with_routed_batches():
    x, batch = cohort()
    with sklearn.config_context(enable_metadata_routing=True):
        combat = ComBat().set_fit_request(batch=True).set_transform_request(batch=True)
        pipeline = make_pipeline(combat, WinsorizedScaler()).fit(x, batch=batch)
        scaled = pipeline.transform(x, batch=batch)
    corrected = ComBat().fit(x, batch=batch).transform(x, batch=batch)
    np.testing.assert_array_equal(scaled, WinsorizedScaler().fit(corrected).transform(corrected))


def test_unknown_policy():
    with pytest.raises(HistillError, match="no policy 'mean'"):
        ComBat(unseen="mean").fit(cohort()[0], batch=cohort()[1])

import numpy as np
import pytest

from histill.transcriptome.quality import outliers, principal_components, robust_z


def test_outliers_are_told_with_their_measure():
    rng = np.random.default_rng(0)
    library = 1e7 * np.exp(0.1 * rng.standard_normal(30))
    library[3] = 2e5
    detected = rng.normal(17000, 100, 30)
    distance = rng.normal(50, 5, 30)
    distance[[7, 8]] = 200, 1  # far, and near: only far stands apart
    found = outliers({"library_size": library, "detected_genes": detected, "distance": distance})
    assert [index for index, reason in enumerate(found) if reason] == [3, 7]
    assert found[3].startswith("reads 200,000 (z -")
    assert found[7].startswith("distance from the others 200 (z +")
    assert outliers({"library_size": library[:9]}) == [""] * 9


def test_robust_z_is_that_of_the_normal_distribution_and_0_without_spread():
    values = np.random.default_rng(0).standard_normal(20000)
    np.testing.assert_allclose(robust_z(values), values, atol=0.1)
    assert not robust_z(np.array([1.0, 1.0, 1.0, 9.0])).any()


def test_one_wild_value_does_not_place_a_sample():
    x = np.random.default_rng(0).standard_normal((200, 50)).astype(np.float32)
    before = principal_components(x)
    x[5, 7] = 1e4
    after = principal_components(x)
    assert np.abs(after[5]).max() < 3 * np.abs(before).max()


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (3, 4)])
def test_few_samples_have_components_of_0(shape):
    scores = principal_components(np.ones(shape, dtype=np.float32))
    assert scores.shape[0] == shape[0]
    assert scores.shape[1] >= 2
    assert not scores.any()

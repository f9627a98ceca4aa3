import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome.normalise import check_unit, log_scale, missing_genes

NAMES = (["S1", "S2"], ["A", "B", "C"])
COUNTS = np.array([[0, 100, 900], [5, 5, 90]], np.float32)
LOGGED = np.array([[0, 5.5, 12.2], [3.2, 0, 9.9]], np.float32)
Z = np.array([[-1, 0.5, 2], [1, -0.5, 0]], np.float32)


def check(values, unit):
    return check_unit("matrix.csv", np.asarray(values, np.float32), unit, *NAMES)


def test_counts_per_million():
    np.testing.assert_allclose(log_scale(COUNTS, "counts")[0], np.log2([1, 1e5 + 1, 9e5 + 1]), rtol=1e-6)
    np.testing.assert_allclose(log_scale(COUNTS, "counts", np.array([2000, 100]))[0, 2], np.log2(4.5e5 + 1), rtol=1e-6)


def test_each_sample_by_itself():
    np.testing.assert_array_equal(log_scale(COUNTS, "counts")[:1], log_scale(COUNTS[:1], "counts"))


@pytest.mark.parametrize("unit", ["tpm", "fpkm"])
def test_linear_units(unit):
    np.testing.assert_allclose(log_scale(COUNTS, unit), np.log2(COUNTS + 1), rtol=1e-6)


@pytest.mark.parametrize("unit", ["log", "zscore"])
def test_given_scales_pass(unit):
    np.testing.assert_array_equal(log_scale(Z, unit), Z)


@pytest.mark.parametrize(
    ("values", "unit"),
    [(COUNTS, "counts"), (COUNTS + 0.25, "counts"), (COUNTS + 0.5, "tpm"), (COUNTS + 0.5, "fpkm"), (LOGGED, "log"),
     (LOGGED - 9.97, "log"), (Z, "zscore")],
)  # fmt: skip
def test_values_that_fit(values, unit):
    assert check(values, unit) == []


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        (Z, "counts", "2 values are negative"),
        (Z, "tpm", "negative"),
        (LOGGED, "counts", "looks logged"),
        (LOGGED, "fpkm", "looks logged"),
        (COUNTS, "log", "no logarithm"),
        (LOGGED, "zscore", "no value is negative"),
        ([[1.5, 2.5, 999_996], [0.5, 0.5, 999_999]], "counts", "sums to one million"),
        ([[0.5, 1e6, 1e6], [1, 1, 1]], "tpm", "sample 'S1' sums to 2,000,000"),
    ],
)
def test_values_that_cannot_have_the_unit(values, unit, message):
    with pytest.raises(HistillError, match=message) as caught:
        check(values, unit)
    assert "transcriptome.matrix.unit" in caught.value.mend
    assert "matrix.csv" in caught.value.message


def test_empty_sample_is_named():
    with pytest.raises(HistillError, match="sample 'S2' is 0"):
        check([[1, 2, 300], [0, 0, 0]], "counts")


def test_outliers_and_whole_numbers_are_said():
    assert check(Z * 4000, "zscore") == [
        "5 z-scores are beyond ±50 (gene 'C' in sample 'S1' is 8000); kept as they are"
    ]
    assert "whole numbers" in check(COUNTS, "tpm")[0]


def test_genes_missing_everywhere_are_found():
    values = COUNTS.copy()
    values[:, 1] = np.nan
    assert missing_genes("x", values, *NAMES) == [1]
    assert missing_genes("x", COUNTS, *NAMES) == []


@pytest.mark.parametrize(("value", "message"), [(np.nan, "1 values are missing"), (np.inf, "1 values are infinite")])
def test_single_bad_values_are_named(value, message):
    values = COUNTS.copy()
    values[1, 2] = value
    with pytest.raises(HistillError, match=f"{message}.*gene 'C' in sample 'S2'"):
        missing_genes("x", values, *NAMES)


def test_matrix_without_a_number():
    with pytest.raises(HistillError, match="no number at all"):
        missing_genes("x", np.full((2, 3), np.nan), *NAMES)

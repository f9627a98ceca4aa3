import re

import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome.normalise import check_unit, log_scale, missing_genes
from histill.transcriptome.read import read_table

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


def test_blocks_of_samples_give_the_whole():
    counts = np.random.default_rng(0).poisson(50, (600, 7)).astype(np.float32)
    expected = np.log2(counts / counts.sum(axis=1, dtype=np.float64)[:, None] * 1e6 + 1)
    np.testing.assert_allclose(log_scale(counts, "counts"), expected, rtol=1e-6)


def test_tpm_and_fpkm_of_counts():
    lengths = np.array([500.0, 2000.0, 1000.0])
    rate = COUNTS / lengths
    tpm = log_scale(COUNTS, "counts", method="tpm", lengths=lengths)
    np.testing.assert_allclose(tpm, np.log2(rate / rate.sum(axis=1)[:, None] * 1e6 + 1), rtol=1e-6)
    fpkm = log_scale(COUNTS, "counts", np.array([2000, 100]), method="fpkm", lengths=lengths)
    np.testing.assert_allclose(fpkm[0, 1], np.log2(100 / 2000 / 2000 * 1e9 + 1), rtol=1e-6)
    np.testing.assert_allclose((np.exp2(tpm) - 1).sum(axis=1), 1e6, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, np.array([500, np.nan, 1000]), np.array([500, 0, 1000])])
def test_tpm_without_all_lengths(lengths):
    with pytest.raises(HistillError, match="tpm of counts needs the length of every gene"):
        log_scale(COUNTS, "counts", method="tpm", lengths=lengths)


@pytest.mark.parametrize("unit", ["tpm", "fpkm"])
def test_linear_units(unit):
    np.testing.assert_allclose(log_scale(COUNTS, unit), np.log2(COUNTS + 1), rtol=1e-6)


@pytest.mark.parametrize("unit", ["log", "zscore"])
def test_given_scales_pass(unit):
    np.testing.assert_array_equal(log_scale(Z, unit), Z)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (COUNTS, "counts"),
        (COUNTS + np.array([0, 0.25, 0]), "counts"),  # RSEM, salmon: expected counts, many of them whole
        (COUNTS + 0.5, "tpm"),
        (COUNTS + 0.5, "fpkm"),
        (LOGGED, "log"),
        (LOGGED - 9.97, "log"),
        (Z, "zscore"),
    ],
)
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


def normalised(how):
    values = np.random.default_rng(0).lognormal(4, 2, (6, 400))
    values[:, :40] = 0
    return values / how(values)[:, None] * 1000


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda values: values.sum(axis=1), "same sum"),
        (lambda values: np.quantile(values, 0.75, axis=1), "same upper quartile, 1,?000,"),
        (
            lambda values: np.array([np.quantile(row[row > 0], 0.75) for row in values]),
            "upper quartile of genes above 0",
        ),
    ],
)
def test_normalised_values_are_no_counts(how, message):
    names = [f"S{row}" for row in range(6)], [f"G{column}" for column in range(400)]
    with pytest.raises(HistillError, match=message):
        check_unit("matrix.csv", normalised(how).astype(np.float32), "counts", *names)


def test_whole_counts_of_one_depth_are_counts():
    assert check(np.array([[0, 100, 900], [500, 400, 100]]), "counts") == []


def test_counts_without_whole_numbers_are_said():
    assert "only 0.0% of the counts above 0 are whole numbers" in check(COUNTS + 0.25, "counts")[0]


def test_empty_sample_is_named():
    with pytest.raises(HistillError, match="sample 'S2' is 0"):
        check([[1, 2, 300], [0, 0, 0]], "counts")


def test_outliers_and_whole_numbers_are_said():
    assert check(Z * 4000, "zscore") == [
        "5 z-scores are beyond ±50 (gene 'C' in sample 'S1' is 8000); clipped in training"
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


@pytest.fixture
def coadread(shared_data):
    return read_table(shared_data / "rna" / "survpath_tcga_coadread_rna.csv")


@pytest.mark.shared_data
def test_log_tpm_of_a_real_cohort_is_no_table_of_counts(coadread):
    values, samples, genes = coadread
    assert check_unit("rna.csv", values, "log", samples, genes) == []
    with pytest.raises(HistillError, match=r"values are negative.*does not hold unit 'counts'"):
        check_unit("rna.csv", values, "counts", samples, genes)


def whole_warnings(values):
    samples, genes = [f"S{row}" for row in range(len(values))], [f"G{column}" for column in range(values.shape[1])]
    return check_unit("x", values, "counts", samples, genes)


@pytest.fixture(scope="module")
def many():
    """Counts of 12 samples, 6,000 genes, 3 to 8 million reads."""
    rng = np.random.default_rng(3)
    means = np.exp(rng.normal(3, 2.5, 6000))
    depth = rng.uniform(3e6, 8e6, (12, 1))
    return rng.poisson(means / means.sum() * depth).astype(np.float64)


def test_whole_numbers_that_look_normalised_are_told(many):
    lengths = np.random.default_rng(4).uniform(0.3, 9, 6000)
    fpkm = np.round(many / lengths / many.sum(axis=1, keepdims=True) * 1e6)
    rate = many / lengths
    tpm = np.round(rate / rate.sum(axis=1, keepdims=True) * 1e6)
    intensity = many + 40
    trimmed = np.sort(intensity, axis=1)[:, 120:-120].mean(axis=1, keepdims=True)
    for values, why in (
        (fpkm, r"sums to [\d,]+, few reads for 6,000 genes"),
        (tpm, "every sample has the same sum, "),
        (np.round(intensity / trimmed * 500), "same mean without its highest and lowest values, 500"),
        (np.hstack([many, many, many]) + 1, "all 18,000 genes are above 0 in all samples"),
        (np.round(many / np.quantile(many, 0.75, axis=1, keepdims=True) * 1000), "same upper quartile, 1,000"),
    ):
        [text] = whole_warnings(values)
        assert re.search(why, text), text
        assert "transcriptome.matrix.unit" in text


def test_counts_are_not_told(many):
    assert whole_warnings(many) == []
    assert whole_warnings(many[:1]) == []
    assert whole_warnings(np.random.default_rng(0).poisson(3, (5, 200)).astype(float)) == []

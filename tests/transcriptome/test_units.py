import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome import normalise
from histill.transcriptome.read import Finding, load
from histill.transcriptome.units import counts_of_log2, detect, near_whole, odd_offset


@pytest.fixture(scope="module")
def counts():
    """Counts of 40 samples with differing depths, [40, 2000]."""
    generator = np.random.default_rng(0)
    mean = np.exp(generator.normal(4, 2, 2000)) * generator.uniform(0.5, 2, (40, 1))
    return generator.poisson(mean).astype(np.float32)


def tpm(counts):
    return counts / counts.sum(axis=1, keepdims=True) * 1e6


def test_whole_numbers_are_counts(counts):
    finding = detect("x", counts)
    assert (finding.value, finding.by) == ("counts", "detected")
    assert "whole numbers" in finding.evidence


def test_estimated_counts_are_counts(counts):
    estimated = counts.copy()
    estimated[:, ::3] += 0.37
    assert detect("x", estimated).value == "counts"


def test_thousands_written_with_a_point_are_no_counts(counts):
    thousands = np.where(counts >= 1000, counts / 1000, counts)
    thousands = np.where(thousands >= 1000, thousands / 1000, thousands)
    with pytest.raises(HistillError, match="cannot tell the unit"):
        detect("x", thousands)


def test_whole_numbers_that_sum_to_one_million_are_asked_for(counts):
    with pytest.raises(HistillError, match="every sample sums to one million"):
        detect("x", tpm(counts).round())


@pytest.mark.parametrize("unit", ["log", "counts", "zscore"])
def test_a_sample_of_one_value_is_refused(counts, unit):
    values = np.log2(counts + 1) - (5 if unit == "zscore" else 0) if unit != "counts" else counts.copy()
    values[7] = 5
    names, genes = [f"S{row}" for row in range(len(values))], [f"G{column}" for column in range(values.shape[1])]
    with pytest.raises(HistillError, match="all values of sample 'S7' are 5"):
        normalise.check_unit("x", values, unit, names, genes)


def test_tpm(counts):
    assert detect("x", tpm(counts)).value == "tpm"


@pytest.mark.parametrize("offset", [1, 0.001])
def test_log_of_tpm(counts, offset):
    finding = detect("x", np.log2(tpm(counts) + offset))
    assert finding.value == "log"
    assert ("one million" if offset == 1 else "the lowest one, -9.96578") in finding.evidence


def test_log_of_upper_quartile_normalised_counts(counts):
    quartile = [[np.quantile(row[row > 0], 0.75)] for row in counts]
    assert detect("x", np.log2(counts / quartile * 12_345 + 1)).value == "log"


def test_log_of_counts_is_counts_again(counts):
    logged = np.log2(counts + 1).round(4)
    finding = detect("x", logged)
    assert finding.value == "log2_counts"
    np.testing.assert_allclose(counts_of_log2("x", logged), counts, rtol=1e-3)
    small = counts < 1000
    np.testing.assert_array_equal(counts_of_log2("x", logged)[small], counts[small])


def test_log_of_estimated_counts_stays_fractional():
    values = np.full((3, 50), 10.37, np.float32)
    np.testing.assert_allclose(counts_of_log2("x", np.log2(values + 1)), values, rtol=1e-5)


@pytest.mark.parametrize("value", [-1, 60])
def test_values_that_are_no_log_of_counts(value):
    with pytest.raises(HistillError, match=r"which log2\(count \+ 1\) cannot be"):
        counts_of_log2("x", np.full((2, 2), value, np.float32))


def test_z_scores(counts):
    logged = np.log2(counts + 1)
    assert detect("x", (logged - logged.mean(axis=0)) / (logged.std(axis=0) + 1e-6)).value == "zscore"


@pytest.mark.parametrize(
    ("make", "choice"),
    [
        (lambda counts: counts * 1.2345, "fpkm"),
        (lambda counts: np.log2(counts * 300.777 + 1), "log2_counts"),
        (lambda counts: counts - 300.5, "log or zscore"),
        (lambda counts: np.minimum(counts, 20), "counts if they are reads"),
        (lambda counts: counts / counts.max(), "log if they are logarithms"),
    ],
)
def test_values_that_do_not_say_are_refused(counts, make, choice):
    with pytest.raises(HistillError, match="cannot tell the unit") as caught:
        detect("x", make(counts))
    assert caught.value.mend.startswith("set transcriptome.matrix.unit to")
    assert choice in caught.value.mend


def test_the_setting_decides_then_the_format(counts):
    stated = Finding("tpm", "detected", "column TPM")
    assert detect("x", counts, "fpkm", stated) == Finding("fpkm", "config", "transcriptome.matrix.unit")
    assert detect("x", counts, "auto", stated) is stated


def test_missing_genes_are_left_aside(counts):
    values = counts.copy()
    values[:, 5] = np.nan
    assert detect("x", values).value == "counts"
    with pytest.raises(HistillError, match="no gene has a value"):
        detect("x", np.full((3, 3), np.nan, np.float32))


def test_share_of_whole_numbers():
    assert near_whole(np.array([1.0, 2.004, 3.5, 0.2, 5000.3])) == pytest.approx(2 / 3)
    assert near_whole(np.array([0.0])) == 0


def test_real_xena_table_is_log_and_no_counts(shared_data):
    path = shared_data / "rna" / "survpath_tcga_coadread_rna.csv"
    table = load(path)
    finding = detect(str(path), table.values)
    assert finding.value == "log"
    assert "-9.9658" in finding.evidence
    with pytest.raises(HistillError, match="values are negative"):
        normalise.check_unit(str(path), table.values, "counts", table.rows, table.columns)


@pytest.mark.parametrize("cohort", ["tcga_stad", "tcga_luad"])
def test_real_z_scores(shared_data, cohort):
    path = shared_data / cohort / "rna.parquet"
    assert detect(str(path), load(path).values).value == "zscore"


def test_real_counts(shared_data):
    path = shared_data / "rna" / "tcga_brca_counts_60.tsv.gz"
    values = load(path).values.T
    assert detect(str(path), values).value == "counts"
    assert detect(str(path), np.log2(values + 1)).value == "log2_counts"


def shallow(counts):
    """Counts of some 400,000 reads a sample, at whose depth 2^x - 1 sums to less than any limit."""
    return np.random.default_rng(1).poisson(counts / 20).astype(np.float32)


@pytest.mark.parametrize(
    "logged",
    [
        lambda counts: np.log2(counts + 1).round(2),
        lambda counts: np.log2(counts + 0.5),
        lambda counts: np.log2(counts + 0.01),
        lambda counts: np.log(counts + 1),
    ],
)
@pytest.mark.parametrize("depth", [lambda counts: counts, shallow])
def test_logarithms_of_counts_do_not_pass_for_logarithms(counts, logged, depth):
    with pytest.raises(HistillError, match="numbers one apart") as caught:
        detect("x", logged(depth(counts)))
    assert "log2_counts" in caught.value.mend
    assert "log if library sizes are taken out" in caught.value.mend


@pytest.mark.parametrize(
    "logged",
    [
        lambda counts: np.log2(tpm(counts) + 1),
        lambda counts: np.log2(tpm(counts) + 1).round(2),
        lambda counts: np.log2(tpm(counts)[:, :1500] + 1),
        lambda counts: np.log2(tpm(counts) + 0.001),
        lambda counts: np.log2(tpm(shallow(counts)) + 1),
        lambda counts: np.log2(tpm(shallow(counts))[:1] + 0.001),
        lambda counts: np.log(tpm(counts) + 1),
        lambda counts: np.log2(np.sort(counts, axis=1) + 40.3 * np.arange(1, 41)[:, None]),
    ],
)
def test_logarithms_of_what_is_normalised_stay_logarithms(counts, logged):
    assert detect("x", logged(counts)).value == "log"


def test_whole_numbers_without_a_zero_need_not_be_counts(counts):
    """log2(count + 2), or microarray intensities that were rounded before the logarithm."""
    with pytest.raises(HistillError, match="but none is 0") as caught:
        detect("x", np.log2(counts + 2))
    assert "log2_counts" in caught.value.mend
    assert odd_offset(np.log2(np.ones((2, 15_000)) + 2)) == [
        "no value of log2(count + 1) is 0, the lowest is 1.58496: was another number than 1 added to the counts?"
    ]
    assert odd_offset(np.log2(counts + 1)) == odd_offset(np.full((2, 9000), 3.0)) == []


def test_real_logarithms_are_logarithms(shared_data):
    path = shared_data / "rna" / "tcga_brca_counts_60.tsv.gz"
    values = load(path).values.T
    linear = tpm(values.astype(np.float64))
    for logged in (np.log2(linear + 1), np.log2(linear + 1).round(2), np.log2(linear + 0.001)):
        assert detect(str(path), logged).value == "log"
    small = np.floor(values / 40)
    for counted in (np.log2(small + 1).round(2), np.log2(small + 0.5), np.log2(values + 0.5)):
        with pytest.raises(HistillError, match="numbers one apart"):
            detect(str(path), counted)

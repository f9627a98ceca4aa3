import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from histill.data.expression_counts import CountNormaliser
from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import shipped
from histill.transcriptome.normalise import log_scale
from histill.transcriptome.read import read_table
from histill.transcriptome.scores import mean_z, ssgsea, subspace_scores

GENES = [f"Gene{index}" for index in range(300)]
SETS = {"up": GENES[:20], "small": GENES[:3], "rest": GENES[100:140]}
IMMUNE = ("T_CELLS", "CYTOTOXIC_NK", "B_PLASMA", "MACROPHAGES", "ANTIGEN_PRESENTATION", "CHECKPOINT")


def matrix(samples=40, seed=0):
    """Log expression whose set `up` rises with the sample's number."""
    values = np.random.default_rng(seed).normal(6, 1, (samples, len(GENES)))
    values[:, :20] += np.linspace(0, 3, samples)[:, None]
    return values


@pytest.mark.parametrize("score", [ssgsea, mean_z])
def test_scores_follow_their_set(score):
    values = matrix()
    found = score(values, GENES, SETS)
    assert found.shape == (40, 3)
    assert spearmanr(found[:, 0], np.arange(40))[0] > 0.9
    assert np.isnan(found[:, 1]).all()
    assert spearmanr(found[:, 2], np.arange(40))[0] < 0.5


@pytest.mark.parametrize("score", [ssgsea, mean_z])
def test_order_of_genes_does_not_matter(score):
    values = np.round(matrix())  # with ties
    order = np.random.default_rng(1).permutation(len(GENES))
    shuffled = score(values[:, order], [GENES[index] for index in order], SETS)
    np.testing.assert_allclose(shuffled, score(values, GENES, SETS), rtol=1e-12)


def test_ssgsea_of_a_sample_does_not_depend_on_the_others():
    values = matrix(70)
    np.testing.assert_array_equal(ssgsea(values[50:51], GENES, SETS), ssgsea(values, GENES, SETS)[50:51])


def test_ssgsea_is_the_running_sum_of_barbie_et_al():
    values = matrix(1)
    ranks = values[0].argsort().argsort() + 1.0
    order = np.argsort(-ranks)
    inside = order < 20
    weight = np.where(inside, (1e4 * ranks[order] / len(GENES)) ** 0.25, 0)
    expected = (weight.cumsum() / weight.sum() - (~inside).cumsum() / (~inside).sum()).sum()
    np.testing.assert_allclose(ssgsea(values, GENES, {"up": GENES[:20]})[0, 0], expected, rtol=1e-6)


def test_mean_z_against_reference_samples():
    reference, new = matrix(), matrix(4, seed=5)
    expected = ((new[:, :20] - reference[:, :20].mean(axis=0)) / reference[:, :20].std(axis=0)).clip(-5, 5).mean(axis=1)
    np.testing.assert_allclose(mean_z(new, GENES, SETS, reference=reference)[:, 0], expected)


def test_constant_genes_say_nothing():
    values = matrix()
    constant = values.copy()
    constant[:, :5] = 3.0
    varying = {"up": GENES[5:20]}
    np.testing.assert_allclose(mean_z(constant, GENES, {"up": GENES[:20]}), mean_z(values, GENES, varying), rtol=1e-12)


@pytest.mark.parametrize("score", [ssgsea, mean_z])
def test_no_set_with_enough_genes(score):
    with pytest.raises(HistillError, match="none of 1 gene sets has 10 genes"):
        score(matrix(), GENES, {"a": ["X", "Y", *GENES[:5]]})


def test_missing_values_have_no_rank():
    values = matrix()
    values[0, 0] = np.nan
    with pytest.raises(HistillError, match="no rank"):
        ssgsea(values, GENES, SETS)


@pytest.fixture(scope="module")
def brca(shared_data):
    """60 tumours of TCGA-BRCA: counts [60, G], patients, genes."""
    values, genes, patients = read_table(shared_data / "rna" / "tcga_brca_counts_60.tsv.gz")
    return values.T.astype(np.float64), patients, genes


def column(path, key, value):
    """Text cells of two columns of a table."""
    import pandas

    table = pandas.read_csv(path, sep="\t")
    return dict(zip(table[key], table[value], strict=True))


@pytest.mark.shared_data
@pytest.mark.parametrize("method", ["cpm", "tmm", "upper_quartile"])
def test_esr1_tells_oestrogen_receptor_status(brca, shared_data, method):
    counts, patients, genes = brca
    status = column(shared_data / "rna" / "tcga_brca_er_her2_labels.tsv", "sample", "ER")
    positive = np.array([status[patient] == "Positive" for patient in patients])
    logs = log_scale(counts, "counts") if method == "cpm" else CountNormaliser(method).fit_transform(counts)
    assert positive.sum() == 30
    assert roc_auc_score(positive, logs[:, genes.index("ESR1")]) >= 0.95


@pytest.mark.shared_data
@pytest.mark.parametrize("score", [ssgsea, mean_z])
def test_immune_score_falls_with_purity(brca, shared_data, score):
    counts, patients, genes = brca
    known = column(shared_data / "rna" / "tcga_tumor_purity.tsv.gz", "Sample.ID", "ABSOLUTE")
    purity = np.array([known.get(f"{patient}-01A", np.nan) for patient in patients])
    measured = np.isfinite(purity)
    immune = {"immune": [gene for name in IMMUNE for gene in shipped("microenvironment")[name]]}
    found = score(log_scale(counts, "counts"), genes, immune)[:, 0]
    assert measured.sum() > 40
    assert spearmanr(found[measured], purity[measured])[0] <= -0.6


@pytest.mark.shared_data
def test_only_the_microenvironment_falls_with_purity(brca, shared_data):
    counts, patients, genes = brca
    known = column(shared_data / "rna" / "tcga_tumor_purity.tsv.gz", "Sample.ID", "ABSOLUTE")
    purity = np.array([known.get(f"{patient}-01A", np.nan) for patient in patients])
    measured = np.isfinite(purity)
    spaces = {space: shipped(space) for space in SUBSPACES}
    found = {
        name: spearmanr(score[measured], purity[measured])[0]
        for name, score in subspace_scores(log_scale(counts, "counts"), genes, spaces).items()
    }
    assert found["microenvironment:ssgsea"] < -0.7
    assert found["microenvironment:mean_z"] < -0.7
    assert found["tumor:ssgsea"] > -0.4
    assert found["tumor:mean_z"] > -0.4

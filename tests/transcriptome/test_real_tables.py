"""What the stage makes of real tables: one matrix however it is written, and biology that is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from histill import config
from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome import stage

pytestmark = pytest.mark.shared_data


def run(path, results, *, small_sets="error", **matrix):
    transcriptome = {"matrix": matrix, "gene_sets": {"small_sets": small_sets}}
    given = {"results": "r", "cohort": {}, "transcriptome": transcriptome}
    return stage.run(path=path, config=config.complete(given), results=results)


@pytest.fixture(scope="module")
def rna(shared_data):
    return shared_data / "rna"


@pytest.fixture(scope="module")
def brca(rna, tmp_path_factory):
    """Results of 60 tumours of TCGA-BRCA, from raw counts by symbol."""
    results = tmp_path_factory.mktemp("brca")
    receipt = run(rna / "tcga_brca_counts_60.tsv.gz", results, patient="tcga")
    return receipt, results


def column(path, key, value):
    import pandas

    table = pandas.read_csv(path, sep="\t")
    return dict(zip(table[key], table[value], strict=True))


def test_counts_are_known_for_what_they_are(brca):
    receipt, results = brca
    findings = receipt["info"]["findings"]
    assert {name: finding["value"] for name, finding in findings.items()} == {
        "genes": "rows", "ids": "symbol", "unit": "counts"
    }  # fmt: skip
    assert all(finding["by"] == "detected" and finding["evidence"] for finding in findings.values())
    assert (receipt["counts"]["samples"], receipt["warnings"]) == (60, [])
    _, matrix, _ = stage.by_patient(results / stage.OUTPUT)
    totals = (np.exp2(matrix) - 1).sum(axis=1)
    assert totals.max() <= 1e6 * (1 + 1e-4)
    assert totals.min() > 0.95e6  # the rest are reads of names that lead to no symbol


def test_counts_are_refused_as_anything_else(rna, tmp_path):
    for unit, reason in (("log", "no logarithm"), ("zscore", "no value is negative"), ("tpm", "sums to")):
        with pytest.raises(HistillError, match=reason):
            run(rna / "tcga_brca_counts_60.tsv.gz", tmp_path, patient="tcga", unit=unit)
    assert not list(tmp_path.iterdir())


def test_one_matrix_however_it_is_written(rna, tmp_path):
    """By symbol, by Ensembl id, with genes in columns, and with genes and samples shuffled."""
    import pandas

    counts = pandas.read_csv(rna / "tcga_brca_counts_60.tsv.gz", sep="\t", index_col=0)
    ids = pandas.read_csv(rna / "gene_annotation_grch38.tsv.gz", sep="\t", dtype=str)
    ids = ids[ids["chr"].isin([*map(str, range(1, 23)), "X", "Y", "MT"])][["id", "symbol"]].drop_duplicates()
    ids = ids[~ids["symbol"].duplicated(keep=False) & ~ids["id"].duplicated(keep=False)].set_index("symbol")["id"]
    counts = counts.loc[counts.index.intersection(ids.index)]
    assert len(counts) > 17000
    ids.loc[counts.index].rename_axis("symbol").reset_index().to_csv(tmp_path / "annotation.csv", index=False)
    rng = np.random.default_rng(0)
    tables = {
        "symbol": counts,
        "ensembl": counts.set_axis(ids.loc[counts.index] + ".7"),
        "transposed": counts.T,
        "shuffled": counts.iloc[rng.permutation(len(counts)), rng.permutation(counts.shape[1])],
    }
    found = {}
    for name, table in tables.items():
        path = tmp_path / f"{name}.parquet"
        table.rename_axis("name").reset_index().to_parquet(path, index=False)
        annotation = {"annotation": str(tmp_path / "annotation.csv")} if name == "ensembl" else {}
        run(path, tmp_path / name, patient="tcga", **annotation)
        patients, matrix, genes = stage.by_patient(tmp_path / name / stage.OUTPUT)
        found[name] = pandas.DataFrame(matrix, index=patients, columns=genes)
    # Ids also tell symbols apart that are of several genes; what is left is the same.
    by_symbol = found.pop("symbol")
    found["ensembl"] = found["ensembl"][by_symbol.columns]
    for table in found.values():
        pandas.testing.assert_frame_equal(table, by_symbol, rtol=0, atol=1e-6)


def test_logarithms_below_zero_are_taken_and_refused_as_counts(rna, tmp_path):
    path = rna / "survpath_tcga_coadread_rna.csv"
    receipt = run(path, tmp_path, patient="tcga", small_sets="keep")
    assert receipt["info"]["findings"]["unit"]["value"] == "log"
    _, matrix, _ = stage.by_patient(tmp_path / stage.OUTPUT)
    assert matrix.min() < 0
    with pytest.raises(HistillError, match=r"values are negative .* does not hold unit 'counts'") as caught:
        run(path, tmp_path / "counts", patient="tcga", unit="counts")
    assert caught.value.mend == "set transcriptome.matrix.unit to log or zscore"


def test_esr1_tells_oestrogen_receptor_status(rna, brca):
    patients, matrix, genes = stage.by_patient(brca[1] / stage.OUTPUT)
    status = column(rna / "tcga_brca_er_her2_labels.tsv", "sample", "ER")
    positive = np.array([status[patient] == "Positive" for patient in patients])
    assert roc_auc_score(positive, matrix[:, genes.index("ESR1")]) >= 0.95


def test_the_microenvironment_falls_with_purity_and_the_tumour_does_not(rna, brca):
    import pandas

    samples = pandas.read_parquet(brca[1] / stage.SAMPLES)
    known = column(rna / "tcga_tumor_purity.tsv.gz", "Sample.ID", "ABSOLUTE")
    purity = np.array([known.get(f"{patient}-01A", np.nan) for patient in samples["patient_id"]])
    measured = np.isfinite(purity)
    assert measured.sum() > 40
    for score in ("ssgsea", "mean_z"):
        found = {s: spearmanr(samples[f"{s}:{score}"][measured], purity[measured])[0] for s in SUBSPACES}
        assert found["microenvironment"] <= -0.6
        assert found["tumor"] > -0.4

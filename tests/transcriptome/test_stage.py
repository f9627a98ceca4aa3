import json

import numpy as np
import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import stage
from histill.transcriptome.gene_sets import check_coverage, coverage, members, subspaces

GENES = ["TP53", "MYC", "EGFR", "CD8A", "COL1A1", "VEGFA"]


def settings(unit="counts", genes="auto", patient="same"):
    matrix = {"unit": unit, "genes": genes, "patient": patient}
    transcriptome = {"matrix": matrix, "gene_sets": {"min_genes": 1}}
    return config.complete({"results": "r", "cohort": {}, "transcriptome": transcriptome})


@pytest.fixture
def matrix(tmp_path):
    """Counts with genes as rows: one pair twice, one without a symbol, a summary line, one missing everywhere."""
    lines = ["gene_id\tS2\tS1", *(f"{gene}|{i}\t{10 * i}\t{i + 100}" for i, gene in enumerate(GENES))]
    lines += ["TP53|99\t5\t7", "?|1\t50\t60", "__no_feature\t9999\t9999", "GHOST|2\tNA\tNA"]
    path = tmp_path / "counts.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_counts_end_to_end(matrix, tmp_path):
    import anndata

    receipt = stage.run(path=matrix, config=settings(), results=tmp_path)
    table = anndata.read_h5ad(tmp_path / stage.OUTPUT)
    assert list(table.obs_names) == list(table.obs["patient_id"]) == ["S2", "S1"]
    assert list(table.var_names) == GENES
    np.testing.assert_array_equal(table.layers["counts"][:, 0], [0 + 5, 100 + 7])
    library = np.array([150 + 5 + 50, 615 + 7 + 60])  # summary line and missing gene are no reads of genes
    np.testing.assert_allclose(table.X, np.log2(table.layers["counts"] * (1e6 / library)[:, None] + 1), rtol=1e-5)
    record = json.loads(table.uns["histill"])
    assert record["unit"] == "counts"
    assert record["merged_genes"] == {"TP53": 2}
    assert record["dropped_genes"] == {
        "?|1": "has no symbol", "GHOST|2": "missing in every sample", "__no_feature": "counts reads of no gene"
    }  # fmt: skip
    assert receipt["counts"] == {
        "samples": 2, "patients": 2, "genes": 6, "dropped_genes": 3, "merged_genes": 1, "dropped_samples": 0
    }  # fmt: skip
    assert receipt == json.loads((tmp_path / "receipts" / "transcriptome.json").read_text())


def test_the_receipt_depends_on_content_alone(matrix, tmp_path):
    first = stage.run(path=matrix, config=settings(), results=tmp_path / "a")
    assert stage.run(path=matrix, config=settings(), results=tmp_path / "b") == first
    matrix.write_text(matrix.read_text().replace("MYC|1\t10", "MYC|1\t11"))
    changed = stage.run(path=matrix, config=settings(), results=tmp_path / "b")
    assert changed["outputs"] != first["outputs"]
    assert changed["recipe"] == first["recipe"]
    assert changed["inputs"] != first["inputs"]


def test_a_refused_matrix_leaves_nothing(matrix, tmp_path):
    with pytest.raises(HistillError, match=r"counts\.tsv"):
        stage.run(path=matrix, config=settings("zscore"), results=tmp_path)
    assert not (tmp_path / "transcriptome").exists()
    assert not (tmp_path / "receipts").exists()


def test_duplicate_samples_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sample_id," + ",".join(GENES) + "\nS1,1,2,3,4,5,6\nS1,1,2,3,4,5,6\n")
    with pytest.raises(HistillError, match="such as 'S1'"):
        stage.run(path=path, config=settings(), results=tmp_path)


def test_tumour_samples_of_barcodes_and_their_mean(tmp_path):
    path = tmp_path / "x.csv"
    rows = {"TCGA-AA-0002-01A": -6, "TCGA-AA-0001-06A": 2, "TCGA-AA-0001-01A": 1, "TCGA-AA-0001-11A": 8}
    lines = [f"{barcode}," + ",".join(str(value + gene) for gene in range(6)) for barcode, value in rows.items()]
    path.write_text("sample_id," + ",".join(GENES) + "\n" + "\n".join(lines) + "\n")
    receipt = stage.run(path=path, config=settings("log", patient="tcga"), results=tmp_path)
    assert receipt["info"]["dropped_samples"] == ["TCGA-AA-0001-11A"]
    assert (receipt["counts"]["samples"], receipt["counts"]["patients"]) == (3, 2)
    assert stage.patients(tmp_path / stage.OUTPUT) == ["TCGA-AA-0002", "TCGA-AA-0001", "TCGA-AA-0001"]
    ids, means, genes = stage.by_patient(tmp_path / stage.OUTPUT)
    assert (ids, genes) == (["TCGA-AA-0001", "TCGA-AA-0002"], GENES)
    np.testing.assert_array_equal(means, [np.arange(6) + 1.5, np.arange(6) - 6.0])


def test_normal_samples_alone_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sample_id," + ",".join(GENES) + "\nTCGA-AA-0001-11A,1,2,3,4,5,6\n")
    with pytest.raises(HistillError, match="none of its 1 samples is a tumour"):
        stage.run(path=path, config=settings(patient="tcga"), results=tmp_path)


def test_readers_name_a_file_that_is_not_there(tmp_path):
    with pytest.raises(HistillError, match=r"absent\.h5ad"):
        stage.by_patient(tmp_path / "absent.h5ad")


@pytest.mark.shared_data
def test_z_scores_of_tcga_luad(shared_data, tmp_path):
    receipt = stage.run(path=shared_data / "tcga_luad" / "rna.parquet", config=settings("zscore"), results=tmp_path)
    assert (receipt["counts"]["samples"], receipt["counts"]["genes"]) == (422, 1555)
    assert receipt["info"]["genes_axis"] == "columns"
    assert "46 z-scores are beyond ±50 (gene 'DEFA5' in sample 'TCGA-55-7570' is 7377.59)" in receipt["warnings"][0]
    ids, matrix, genes = stage.by_patient(tmp_path / stage.OUTPUT)
    assert matrix[ids.index("TCGA-55-7570"), genes.index("DEFA5")] == pytest.approx(7377.59, abs=0.01)
    spaces = subspaces(settings())
    assert check_coverage(spaces, genes, min_genes=200)
    assert all(count["found"] >= 5 for sets in spaces.values() for count in coverage(sets, genes).values())
    assert len(set(members(spaces["microenvironment"])) & set(genes)) > 300


@pytest.mark.shared_data
def test_counts_of_tcga_brca(shared_data, tmp_path):
    path = shared_data / "rna" / "tcga_brca_counts_60.tsv.gz"
    receipt = stage.run(path=path, config=settings(patient="tcga"), results=tmp_path)
    assert (receipt["counts"]["samples"], receipt["counts"]["genes"]) == (60, 20124)
    assert receipt["warnings"] == []
    _, matrix, genes = stage.by_patient(tmp_path / stage.OUTPUT)
    np.testing.assert_allclose(np.exp2(matrix).sum(axis=1) - len(genes), 1e6, rtol=1e-4)
    assert check_coverage(subspaces(settings()), genes, min_genes=500) == []
    with pytest.raises(HistillError, match="no logarithm"):
        stage.run(path=path, config=settings("log"), results=tmp_path)

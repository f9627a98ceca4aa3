"""Columns beside the matrix: what describes genes or patients is left out, and said."""

import numpy as np
import pandas
import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import identifiers_table, matrix
from histill.transcriptome.read_beside import ABOUT_GENES, beside_genes, beside_samples, describes_genes

GENES = ["CD8A", "COL1A1", "EGFR", "MYC", "TP53", "VEGFA"]


def options(**given):
    given = {"results": "r", "cohort": {}, "transcriptome": {"matrix": given}}
    return config.complete(given)["transcriptome"]["matrix"]


def table(samples=4):
    """Counts, genes as rows."""
    values = np.random.default_rng(0).integers(0, 5000, (len(GENES), samples))
    return pandas.DataFrame(values, GENES, [f"PT{index}" for index in range(samples)]).rename_axis("gene")


def read(frame, tmp_path, **given):
    frame.to_csv(tmp_path / "x.csv")
    return matrix.read(tmp_path / "x.csv", options(unit="counts", **given))


ABOUT = """
length Length gene_length Width entrezgene_id ENTREZID HGNC.ID NCBI.gene.ID num_exons chromosome END Strand level gc
Gene.start.(bp) ensembl_version GC_content Gene-Biotype logFC avg_log2FC log2FoldChange baseMean pval P.Value adj.P.Val
padj p_val_adj stat
"""


@pytest.mark.parametrize("name", ABOUT.split())
def test_numbers_about_genes_are_no_patients(name, tmp_path):
    frame = table()
    expected = read(frame, tmp_path)
    frame.insert(2, name, np.arange(len(GENES)) * 7 % 5 + 0.5)
    found = read(frame, tmp_path)
    assert found.patients == expected.patients == ["PT0", "PT1", "PT2", "PT3"]
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.findings["left_out"].value == name
    assert "rename" in found.findings["left_out"].evidence
    assert "left_out" not in expected.findings


def test_text_about_genes_is_left_out_and_said(tmp_path):
    frame = table()
    frame.insert(0, "Description", "a gene, of course")
    frame.insert(4, "Entrez_Gene_Id", [925, 1277, 1956, 4609, 7157, 7422])
    assert read(frame, tmp_path).findings["left_out"].value == "Description, Entrez_Gene_Id"


def test_a_running_number_is_no_patient(tmp_path):
    frame = table()
    frame.insert(0, "X", range(1, 7))
    frame.insert(1, "PT9", range(1, 7))  # a patient's name
    found = read(frame, tmp_path)
    assert (found.patients, found.findings["left_out"].value) == (["PT0", "PT1", "PT2", "PT3", "PT9"], "X")


def test_no_symbol_is_a_name_of_a_column_about_genes():
    for kind in ("current", "previous"):
        assert not [name for name in identifiers_table.index(kind).index if describes_genes(name)]
    # An alias of ENG; the first six columns of featureCounts hold it too.
    assert [name for name in identifiers_table.index("alias").index if describes_genes(name)] == ["END"]
    assert ABOUT_GENES.fullmatch("gene_name")


def test_genes_named_like_columns_about_genes_stay_columns(tmp_path):
    frame = table().rename({"CD8A": "GC", "MYC": "MAX"}).T.rename_axis("sample_id")
    found = read(frame, tmp_path)
    assert {"GC", "MAX"} <= set(found.genes)
    assert "left_out" not in found.findings


def test_columns_of_a_clinical_sheet_are_no_genes(tmp_path):
    """AGE would be dropped and counted; SEX is an alias of PLXNA3, OS of MID1, DSS of NR0B1."""
    frame = table().T.rename_axis("sample_id")
    expected = read(frame, tmp_path)
    frame = frame.assign(AGE=[61, 72, 55, 48], SEX=[0, 1, 1, 0], OS=[300, 1200, 80, 950], DSS=1, HER2=[0, 3, 2, 1])
    frame = frame.assign(MET=[0, 1, 0, 0])
    found = read(frame, tmp_path)
    assert found.findings["left_out"].value == "AGE, SEX, OS, DSS, HER2, MET"
    assert found.genes == expected.genes == GENES
    np.testing.assert_array_equal(found.library, expected.library)


def test_text_of_a_clinical_sheet_is_refused(tmp_path):
    frame = table().T.rename_axis("sample_id").assign(STAGE=["II", "I", "III", "II"])
    with pytest.raises(HistillError, match="column 'STAGE', row 'PT0' holds 'II', which is no number") as caught:
        read(frame, tmp_path)
    assert "remove the column" in caught.value.mend


def test_measured_genes_are_no_codes():
    values = np.array([[500, 3.7, 2], [820, 0.1, 1]])
    assert beside_samples(["HER2", "ER", "MET"], values) == []  # MET of 2 and 1 alone may be counts
    assert beside_samples(["HER2", "ER", "MET"], np.round(values)) == [1, 2]
    assert beside_samples(["HER2", "SET", "MET"], np.round(values)) == []
    assert beside_genes(["PT1", "gc"], values[:, :2]) == [1]

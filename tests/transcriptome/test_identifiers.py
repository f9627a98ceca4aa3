import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome import identifiers
from histill.transcriptome.identifiers import genes_axis, merge_duplicates, patients_of_barcodes, symbols

GENES = ["TP53", "MYC", "EGFR", "CD8A", "COL1A1", "VEGFA", "MKI67", "novel1", "novel2"]
SAMPLES = [f"S{index}" for index in range(6)]


def test_axis_by_known_symbols():
    assert genes_axis("x", SAMPLES, GENES, "auto") == "columns"
    assert genes_axis("x", GENES, SAMPLES, "auto") == "rows"


def test_axis_by_the_form_of_names():
    assert genes_axis("x", [f"ENSG0000000000{i}.2" for i in range(6)], SAMPLES, "auto") == "rows"
    assert genes_axis("x", SAMPLES, [f"LOC{i}|{i}" for i in range(6)], "auto") == "columns"


@pytest.mark.parametrize("rows", [SAMPLES, GENES])
def test_axis_without_evidence_is_refused(rows):
    columns = ["f1", "f2"] if rows is SAMPLES else GENES
    with pytest.raises(HistillError, match="which axis holds the genes") as caught:
        genes_axis("x", rows, columns, "auto")
    assert "transcriptome.matrix.genes" in caught.value.mend


def test_axis_as_set():
    assert genes_axis("x", GENES, SAMPLES, "columns") == "columns"


def test_symbols():
    assert symbols("x", ["TP53|7157", "MYC", "?|100130426", " HLA-A "]) == ["TP53", "MYC", None, "HLA-A"]


def test_ensembl_ids_are_refused():
    with pytest.raises(HistillError, match=r"1 of 2 genes are Ensembl ids.*ENSG00000141510\.16"):
        symbols("x", ["TP53", "ENSG00000141510.16"])


def test_summary_lines():
    names = ["__no_feature", "N_unmapped", "TP53", "N_noFeature", "NKX2-1"]
    assert identifiers.summary_lines(names) == [0, 1, 3]


def test_spreadsheet_dates():
    assert identifiers.spreadsheet_dates(["2-Sep", "SEPTIN2", "1-Mar", "NKX2-1"]) == ["2-Sep", "1-Mar"]


@pytest.mark.parametrize(("average", "expected"), [(False, [[4, 2], [8, 5]]), (True, [[2, 2], [4, 5]])])
def test_merge_duplicates(average, expected):
    values = np.array([[1, 2, 3], [3, 5, 5]], np.float32)
    merged, genes, counts = merge_duplicates(values, ["A", "B", "A"], average=average)
    np.testing.assert_array_equal(merged, expected)
    assert (genes, counts, merged.dtype) == (["A", "B"], {"A": 2}, np.float32)


def test_barcodes():
    samples = ["TCGA-A8-A08X", "TCGA-A8-A08Y-01A-11R-A115-07", "TCGA-A8-A08Z-11A", "tcga.a8.a090.06", "TCGA-A8-A08Q-20"]
    patients, kept, dropped = patients_of_barcodes("x", samples)
    assert patients == ["TCGA-A8-A08X", "TCGA-A8-A08Y", "TCGA-A8-A090"]
    assert (kept, dropped) == ([0, 1, 3], ["TCGA-A8-A08Z-11A", "TCGA-A8-A08Q-20"])


def test_ids_that_are_no_barcodes():
    with pytest.raises(HistillError, match=r"1 of 2 sample ids.*'S1'"):
        patients_of_barcodes("x", ["TCGA-A8-A08X", "S1"])

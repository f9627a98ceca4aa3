import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome.lengths import lengths_of, read_lengths


def table(tmp_path, text):
    path = tmp_path / "lengths.tsv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "gene\tbases\nTP53\t2500\nMYC\t3000.5\n",
        "Geneid\tChr\tStart\tLength\nTP53\tchr17\t1\t2500\nMYC\tchr8;chr8\t9\t3000.5\n",  # featureCounts
        "gene\tlength\nTP53\t900\nMYC\t3000.5\nTP53\t2500\n",  # the longest of a gene counts
    ],
)
def test_lengths_are_read(tmp_path, text):
    assert read_lengths(table(tmp_path, text)) == {"TP53": 2500.0, "MYC": 3000.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene\tstart\tend\nTP53\t1\t2\n", "0 of 2 columns"),
        ("gene\tlength\teff_length\nTP53\t1\t2\n", "2 of 2 columns"),
        ("gene\tlength\nTP53\t0\nMYC\t5\n", "gene 'TP53' has length 0"),
    ],
)
def test_tables_without_clear_lengths(tmp_path, text, message):
    with pytest.raises(HistillError, match=message):
        read_lengths(table(tmp_path, text))


def test_lengths_of_genes():
    known = {f"G{index}": 100.0 + index for index in range(19)}
    genes = [f"G{index}" for index in range(20)]
    np.testing.assert_array_equal(lengths_of("x", known, genes), [*(100.0 + np.arange(19)), np.nan])
    with pytest.raises(HistillError, match="lengths of 19 of 40 genes"):
        lengths_of("x", known, [f"G{index}" for index in range(40)])

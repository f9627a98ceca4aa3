"""Expression of names that lead to no symbol."""

import numpy as np
import pandas
import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import matrix

GENES = ["CD8A", "COL1A1", "EGFR", "MYC", "TP53", "VEGFA"]


def read(frame, tmp_path, unit="counts", **given):
    given = {"results": "r", "cohort": {}, "transcriptome": {"matrix": {"unit": unit, **given}}}
    frame.rename_axis("sample_id").to_csv(tmp_path / "x.csv")
    return matrix.read(tmp_path / "x.csv", config.complete(given)["transcriptome"]["matrix"])


def table(**more):
    values = np.random.default_rng(0).integers(500, 5000, (4, len(GENES)))
    return pandas.DataFrame(values, [f"PT{row}" for row in range(4)], GENES).assign(**more)


@pytest.mark.parametrize("unit", ["counts", "fpkm"])
@pytest.mark.parametrize("name", ["case_id", "total_reads", "library.size"])
def test_a_number_beside_the_samples_is_no_gene(name, unit, tmp_path):
    with pytest.raises(HistillError, match=f"'{name}', which is no known gene, holds 9.% of sample 'PT") as caught:
        read(table(**{name: [900_001, 900_002, 900_003, 900_004]}), tmp_path, unit)
    assert f"remove '{name}'" in caught.value.mend
    assert "transcriptome.matrix.unknown_genes" in caught.value.mend


def test_a_gene_that_is_kept_though_unknown_is_told(tmp_path):
    found = read(table(MYNEWGENE=90_000), tmp_path, unknown_genes="keep")
    assert "MYNEWGENE" in found.genes
    assert any("'MYNEWGENE', which is no known gene, holds" in text for text in found.warnings)


@pytest.mark.parametrize("name", ["AC012345.1", "LOC100130426", "?", "?|100130426", "ENSG00000280441"])
def test_genes_without_a_symbol_are_a_warning(name, tmp_path):
    found = read(table(**{name: 90_000}), tmp_path, ids="symbol")
    assert name not in found.genes
    assert any("of the expression is of names that lead to no symbol" in text for text in found.warnings)


def test_little_of_an_unknown_name_is_no_error(tmp_path):
    assert read(table(newgene=30), tmp_path).genes == GENES

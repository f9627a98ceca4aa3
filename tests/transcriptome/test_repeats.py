"""What a table holds twice."""

import numpy as np
import pandas
import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import matrix, repeats

GENES = ["CD8A", "COL1A1", "EGFR", "MYC", "TP53", "VEGFA", "AC012345.1"]
BARCODE = "TCGA-AA-0001-01A-11R-A115-07"


def read(frame, tmp_path, unit="counts", **given):
    given = {"results": "r", "cohort": {}, "transcriptome": {"matrix": {"unit": unit, **given}}}
    frame.to_parquet(tmp_path / "x.parquet")
    return matrix.read(tmp_path / "x.parquet", config.complete(given)["transcriptome"]["matrix"])


def table(samples):
    values = np.random.default_rng(0).integers(10, 5000, (len(GENES), len(samples)))
    return pandas.DataFrame(values, GENES, samples)


@pytest.mark.parametrize("unit", ["counts", "tpm", "log"])
def test_rows_written_twice_are_taken_once(unit, tmp_path):
    frame = table(["PT1", "PT2", "PT3"]) / (100 if unit == "log" else 1)
    expected = read(frame, tmp_path, unit)
    found = read(pandas.concat([frame, frame.iloc[[3, 6]]]), tmp_path, unit)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.library, expected.library)
    text = "2 genes are written twice with the same values, such as 'MYC'; they are taken once"
    assert text in found.warnings
    assert text not in expected.warnings
    last = found.mapping.iloc[-2]
    assert last.tolist() == ["MYC", "", "", "dropped", "is written twice, with the same values"]


def test_rows_of_one_gene_that_differ_are_summed(tmp_path):
    frame = table(["PT1", "PT2", "PT3"])
    other = frame.iloc[[3]] + [0, 0, 1]
    found = read(pandas.concat([frame, other]), tmp_path)
    column = found.genes.index("MYC")
    np.testing.assert_array_equal(found.values[:, column], 2 * frame.loc["MYC"] + [0, 0, 1])
    assert not any("twice" in text for text in found.warnings)


def test_a_barcode_written_twice_is_taken_once(tmp_path):
    frame = table([BARCODE, "TCGA-AA-0002-01A"])
    frame[BARCODE.lower()] = frame[BARCODE]
    found = read(frame, tmp_path, patient="tcga")
    assert (found.samples, found.replicates) == ([BARCODE, "TCGA-AA-0002-01A"], {})
    assert f"sample '{BARCODE.lower()}' is written twice, with the same values; it is taken once" in found.warnings


def test_a_barcode_with_two_measurements_is_refused(tmp_path):
    frame = table([BARCODE, BARCODE.replace("-", "."), "TCGA-AA-0002-01A"])
    with pytest.raises(HistillError, match="occurs more than once, with different values") as caught:
        read(frame, tmp_path, patient="tcga")
    assert "full barcodes" in caught.value.mend


def test_barcodes_cut_to_the_patient_are_replicates(tmp_path):
    found = read(table(["TCGA-AA-0001", "TCGA.AA.0001"]), tmp_path, patient="tcga")
    assert found.replicates == {"TCGA-AA-0001": ["TCGA-AA-0001", "TCGA.AA.0001"]}
    assert any("'TCGA.AA.0001' occurs again, with other values" in text for text in found.warnings)


def test_normal_samples_under_one_barcode_do_not_matter(tmp_path):
    normal = "TCGA-AA-0003-11A-11R-A115-07"
    found = read(table([BARCODE, normal, normal.lower()]), tmp_path, patient="tcga")
    assert found.patients == ["TCGA-AA-0001"]


def test_zeros_written_twice_are_not_told():
    values = np.array([[0, 5, 0], [0, 7, 0]])
    assert repeats.genes_written_twice(values, ["A", "B", "A"]) == [2]
    assert repeats.warning(values, ["A", "B", "A"], [2]) == []

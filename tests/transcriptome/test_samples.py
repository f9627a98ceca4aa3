import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome import barcodes
from histill.transcriptome.samples import choose_tumours, merge_replicates, read_sheet

FULL = "TCGA-A8-A08Y-01A-11R-A115-07"


def test_parts_of_barcodes():
    table = barcodes.parse("x", [FULL, "tcga.a8.a090.06", "TCGA-A8-A08X"])
    assert table.loc[FULL].tolist() == [0, "TCGA-A8-A08Y", "01", "A", "11", "R", "A115", "07"]
    assert table.loc["tcga.a8.a090.06"].tolist() == [1, "TCGA-A8-A090", "06", "A", "", "", "", ""]
    assert table.loc["TCGA-A8-A08X", "sample_type"] == "01"


@pytest.mark.parametrize("wrong", ["S1", "TCGA-A8-A08", "TCGA-A8-A08X-1A", "TCGA-A8-A08X-01A-slide"])
def test_ids_that_are_no_barcodes(wrong):
    with pytest.raises(HistillError, match=rf"1 of 2 sample ids.*'{wrong}'"):
        barcodes.parse("x", ["TCGA-A8-A08X", wrong])


def test_tumours_are_chosen_by_type_then_vial():
    samples = [
        "TCGA-AA-0001-06A",  # metastasis beside a primary
        "TCGA-AA-0001-01B",  # second vial
        "TCGA-AA-0001-01A-11R-A115-07",
        "TCGA-AA-0001-01A-21R-A200-07",
        "TCGA-AA-0002-11A",  # normal
        "TCGA-AA-0003-06A",  # metastasis alone
        "TCGA-AA-0004-20A",
    ]
    kept, patients, dropped = choose_tumours("x", samples)
    assert kept == [2, 3, 5]
    assert patients == ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-AA-0003"]
    assert dropped == {
        "TCGA-AA-0001-06A": "is a metastasis (06); the patient has a better one",
        "TCGA-AA-0001-01B": "is of a later vial",
        "TCGA-AA-0002-11A": "is normal solid tissue (11)",
        "TCGA-AA-0004-20A": "is a control analyte (20)",
    }


def test_other_types_in_another_order():
    samples = ["TCGA-AA-0001-06A", "TCGA-AA-0001-01A", "TCGA-AA-0002-01A"]
    kept, patients, dropped = choose_tumours("x", samples, ("06",))
    assert (kept, patients) == ([0], ["TCGA-AA-0001"])
    assert set(dropped) == set(samples[1:])


def test_no_tumour_at_all():
    with pytest.raises(HistillError, match="none of its 1 samples is of a wanted type"):
        choose_tumours("x", ["TCGA-AA-0001-11A"])


SAMPLES = ["TCGA-AA-0002-01A-11R-A115-07", "TCGA-AA-0001-01A-11R-A115-07", "TCGA-AA-0001-01A-12R-A100-07"]
PATIENTS = [name[:12] for name in SAMPLES]
VALUES = np.array([[1, 2], [10, 20], [30, 45]], np.float32)


def test_replicates_are_averaged():
    values, samples, patients, merged = merge_replicates(VALUES, SAMPLES, PATIENTS, "mean")
    np.testing.assert_array_equal(values, [[20, 32.5], [1, 2]])
    assert patients == ["TCGA-AA-0001", "TCGA-AA-0002"]
    assert samples == [f"{SAMPLES[2]}+{SAMPLES[1]}", SAMPLES[0]]
    assert merged == {"TCGA-AA-0001": [SAMPLES[2], SAMPLES[1]]}
    assert values.dtype == np.float32


def test_the_first_replicate_is_the_highest_portion():
    values, samples, _, merged = merge_replicates(VALUES, SAMPLES, PATIENTS, "first")
    np.testing.assert_array_equal(values, [[30, 45], [1, 2]])
    assert samples == [SAMPLES[2], SAMPLES[0]]
    assert merged == {"TCGA-AA-0001": [SAMPLES[2], SAMPLES[1]]}


def test_rna_analytes_are_ranked_before_portions():
    names = ["TCGA-AA-0001-01A-31T-A100-07", "TCGA-AA-0001-01A-11R-A100-07", "TCGA-AA-0001-01A-01H-A100-07"]
    _, samples, *_ = merge_replicates(np.eye(3, dtype=np.float32), names, ["P"] * 3, "first")
    assert samples == [names[2]]


def test_replicates_do_not_depend_on_the_order_of_the_table():
    order = [2, 0, 1]
    shuffled = merge_replicates(VALUES[order], [SAMPLES[i] for i in order], [PATIENTS[i] for i in order], "mean")
    np.testing.assert_array_equal(shuffled[0], merge_replicates(VALUES, SAMPLES, PATIENTS, "mean")[0])


def test_samples_of_other_studies_sort_by_name():
    _, samples, patients, _ = merge_replicates(VALUES, ["b", "c", "a"], ["P1", "P2", "P1"], "first")
    assert (samples, patients) == (["a", "c"], ["P1", "P2"])


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="rule is 'median'"):
        merge_replicates(VALUES, SAMPLES, PATIENTS, "median")


GDC = "File ID\tFile Name\tData Type\tProject ID\tCase ID\tSample ID\tSample Type\n"


def test_sheet_of_gdc(tmp_path):
    path = tmp_path / "gdc_sample_sheet.2026-01-01.tsv"
    path.write_text(GDC + "u1\ta.tsv\tG\tTCGA-BRCA\tTCGA-AA-0001, TCGA-AA-0001\tTCGA-AA-0001-01A\tPrimary Tumor\n")
    sheet = read_sheet(path)
    assert sheet.samples == {"a.tsv": "TCGA-AA-0001-01A", "u1": "TCGA-AA-0001-01A"}
    assert set(sheet.patients.values()) == {"TCGA-AA-0001"}


def test_a_plain_sheet_without_patients(tmp_path):
    (tmp_path / "s.csv").write_text("file,sample_id\nrun/a.tsv,S1\nb.tsv,S2\n")
    sheet = read_sheet(tmp_path / "s.csv")
    assert (sheet.samples, sheet.patients) == ({"run/a.tsv": "S1", "b.tsv": "S2"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sample_id\na,S1\n", "no column for the file"),
        ("file,group\na,S1\n", "no column for the sample"),
        ("file,sample_id\na,\n", "data row 1: file, sample or patient is empty"),
        ("file,sample_id\na,S1\na,S2\n", "data row 2: 'a' occurs a second time"),
        ('file,sample_id,patient_id\na,S1,"P1, P2"\n', "names several"),
    ],
)
def test_bad_sheets(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(HistillError, match=message) as caught:
        read_sheet(tmp_path / "s.csv")
    assert caught.value.mend


@pytest.mark.parametrize("analyte", ["D", "W", "G", "X"])
def test_portions_of_dna_are_left_out(analyte):
    dna, rna = f"TCGA-AA-0001-01A-11{analyte}-A115-01", "TCGA-AA-0001-01A-11R-A115-07"
    later = "TCGA-AA-0001-01B-11R-A115-07"
    kept, patients, dropped = choose_tumours("x", [dna, rna])
    assert (kept, patients) == ([1], ["TCGA-AA-0001"])
    assert dropped == {dna: f"is a portion of DNA (analyte {analyte})"}
    assert choose_tumours("x", [later, dna])[0] == [0]  # of a later vial, but the only one of RNA
    with pytest.raises(HistillError, match=f"which is a portion of DNA .analyte {analyte}"):
        choose_tumours("x", [dna])

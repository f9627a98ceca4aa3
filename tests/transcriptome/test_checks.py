import pytest

from histill import config
from histill.cohort.sheets import Clinical, Sheets
from histill.transcriptome import checks


def complete(expression=None, **transcriptome):
    cohort = {"expression": expression} if expression else {}
    return config.complete({"results": "r", "cohort": cohort, "transcriptome": transcriptome})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix": {"annotation": "absent.tsv"}}, "transcriptome.matrix.annotation': 'absent.tsv' is no file"),
        ({"matrix": {"count_scale": "tpm"}}, "tpm needs the table of gene lengths"),
        (
            {"matrix": {"count_scale": "fpkm", "unit": "log", "gene_lengths": __file__}},
            "is for counts, and unit is log",
        ),
        ({"matrix": {"unit": "tpm"}, "transform": {"normalisation": "tmm"}}, "tmm is for counts"),
    ],
)
def test_keys_that_cannot_be(options, message):
    (problem,) = checks.matrix(complete(**options))
    assert message in problem


def test_folders_are_looked_into(tmp_path):
    (problem,) = checks.matrix(complete(str(tmp_path)))
    assert "holds no file of a known tool" in problem
    (tmp_path / "AReadsPerGene.out.tab").write_text("")
    assert not checks.matrix(complete(str(tmp_path)))
    sheet = {"matrix": {"sheet": __file__}}
    assert not checks.matrix(complete(str(tmp_path), **sheet))
    assert "is one file" in checks.matrix(complete(__file__, **sheet))[0]


def test_a_broken_gene_set_file_is_told(tmp_path):
    path = tmp_path / "x.gmt"
    path.write_text("A\td\n")
    (problem,) = checks.gene_sets(complete(gene_sets={"tumor": str(path)}))
    assert "line 1: no name or no gene" in problem


def test_batch_columns_stand_in_the_clinical_sheet():
    sheets = Sheets(clinical=Clinical(columns=["patient_id", "plate"]))
    assert not checks.batches(complete(), sheets)
    assert not checks.batches(complete(transform={"batch": {"column": "plate"}}), sheets)
    for column in ("centre", "site"):
        (problem,) = checks.batches(complete(transform={"batch": {"column": column}}), sheets)
        assert f"no column '{column}'" in problem

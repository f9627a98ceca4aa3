import csv
import gzip

import pytest

from histill import config
from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import (
    SHIPPED,
    check_coverage,
    coverage,
    coverage_table,
    current,
    members,
    read_gmt,
    shipped,
    subspaces,
)

FILES = ("tumor", "microenvironment", "families", "hallmark")


def settings(**options):
    return config.complete({"results": "r", "cohort": {}, "transcriptome": {"gene_sets": options}})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tumor.gmt").write_text("A\tdescription\tGENE-1\tGENE-2\tSHARED\nB\t\tSHARED\n")
    (tmp_path / "micro.gmt").write_text("C\tdescription\tSHARED\tGENE-3\n")
    return {"tumor": str(tmp_path / "tumor.gmt"), "microenvironment": str(tmp_path / "micro.gmt")}


@pytest.mark.parametrize("space", SUBSPACES)
def test_sets_of_the_subspaces_have_a_size_for_tokens(space):
    sets = shipped(space)
    assert 8 <= len(sets) <= 15
    assert all(20 <= len(genes) <= 60 for genes in sets.values())


@pytest.mark.parametrize(("name", "count"), [("families", 6), ("hallmark", 50)])
def test_other_shipped_sets(name, count):
    assert len(shipped(name)) == count


@pytest.mark.parametrize("name", FILES)
def test_shipped_sets_are_sorted_symbols_of_today(name):
    with gzip.open(SHIPPED.parent / "genes" / "hgnc.tsv.gz", "rt") as stream:
        known = {row["symbol"] for row in csv.DictReader(stream, delimiter="\t")}
    assert all(genes == sorted(genes) for genes in shipped(name).values())
    assert set(members(current(shipped(name)))) <= known


def test_previous_symbols_become_current_ones():
    assert current({"A": ["SEPT2", "TP53", "NOT1GENE"], "B": ["MLL", "KMT2A"]}) == {
        "A": ["SEPTIN2", "TP53", "NOT1GENE"],
        "B": ["KMT2A"],
    }
    assert current({"A": ["ENSG00000141510.18", "ENSG00000136997"]}) == {"A": ["TP53", "MYC"]}
    assert current({"A": ["MARCH1", "HLA.A", "QARS", "CD20"]}) == {"A": ["MARCHF1", "HLA-A", "QARS", "MS4A1"]}


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_set_states_its_licence(name):
    for line in (SHIPPED / f"{name}.gmt").read_text().splitlines():
        assert any(licence in line.split("\t")[1] for licence in ("CC0-1.0", "CC BY 4.0"))


def test_sets_under_an_attribution_licence_are_in_the_notice(root):
    lines = {name: (SHIPPED / f"{name}.gmt").read_text().splitlines() for name in FILES}
    attributed = {name for name, sets in lines.items() if any("CC BY" in line.split("\t")[1] for line in sets)}
    assert attributed == {"hallmark", "families"}
    notice = (root / "NOTICE").read_text()
    for name in attributed:
        assert f"resources/gene_sets/{name}.gmt" in notice
    assert "https://creativecommons.org/licenses/by/4.0/" in notice


def test_families_hold_their_best_known_members():
    sets = shipped("families")
    known = {
        "TUMOR_SUPPRESSORS": {"TP53", "PTEN", "RB1", "APC"},
        "ONCOGENES": {"KRAS", "MYC", "PIK3CA", "EGFR"},
        "PROTEIN_KINASES": {"EGFR", "CDK4", "ATM", "MTOR"},
        "CELL_DIFFERENTIATION_MARKERS": {"CD8A", "PTPRC", "NCAM1", "PECAM1"},
        "TRANSCRIPTION_FACTORS": {"TP53", "ESR1", "FOXP3", "STAT3", "HIF1A", "ZEB1"},
        "CYTOKINES_GROWTH_FACTORS": {"IL6", "TNF", "VEGFA", "TGFB1", "CXCL8", "IFNG"},
    }
    assert sets.keys() == known.keys()
    for name, genes in known.items():
        assert genes <= set(sets[name]), name
    assert not {"PGK1", "PKM"} & set(sets["PROTEIN_KINASES"])
    assert not {"IL6R", "TGFBR1"} & set(sets["CYTOKINES_GROWTH_FACTORS"])


def test_sets_that_are_not_shipped():
    with pytest.raises(HistillError, match="no gene sets 'kegg'") as caught:
        shipped("kegg")
    assert "hallmark" in caught.value.mend


def test_null_paths_are_the_shipped_sets():
    assert subspaces(settings()) == {space: current(shipped(space)) for space in SUBSPACES}


@pytest.mark.parametrize(
    ("policy", "tumor", "microenvironment"),
    [
        ("both", {"A": ["GENE-1", "GENE-2", "SHARED"], "B": ["SHARED"]}, {"C": ["SHARED", "GENE-3"]}),
        ("drop", {"A": ["GENE-1", "GENE-2"]}, {"C": ["GENE-3"]}),
        ("tumor", {"A": ["GENE-1", "GENE-2", "SHARED"], "B": ["SHARED"]}, {"C": ["GENE-3"]}),
        ("microenvironment", {"A": ["GENE-1", "GENE-2"]}, {"C": ["SHARED", "GENE-3"]}),
    ],
)
def test_shared_genes(files, policy, tumor, microenvironment):
    spaces = subspaces(settings(**files, shared_genes=policy))
    assert spaces == {"tumor": tumor, "microenvironment": microenvironment}


def test_a_subspace_left_empty_is_an_error(files):
    with pytest.raises(HistillError, match="shared_genes"):
        subspaces(settings(**files | {"microenvironment": files["tumor"]}, shared_genes="drop"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A\tonly a description\n", "line 1"),
        ("A\td\tGENE-1\nA\td\tGENE-2\n", "line 2.*second time"),
        ("\n\n", "no gene set"),
    ],
)
def test_bad_gmt(tmp_path, text, message):
    path = tmp_path / "bad.gmt"
    path.write_text(text)
    with pytest.raises(HistillError, match=message):
        read_gmt(path)


def test_gmt_that_is_not_there(tmp_path):
    with pytest.raises(HistillError, match=r"missing\.gmt"):
        read_gmt(tmp_path / "missing.gmt")


def test_repeated_and_empty_cells_of_a_line(tmp_path):
    path = tmp_path / "x.gmt"
    path.write_text("A\td\tGENE-2\tGENE-1\tGENE-2\t\t\r\n")
    assert read_gmt(path) == {"A": ["GENE-2", "GENE-1"]}


SETS = {"A": ["GENE-1", "GENE-2", "GENE-3"], "B": ["GENE-4"]}


def test_coverage():
    assert coverage(SETS, ["GENE-1", "GENE-3", "X"]) == {"A": {"found": 2, "total": 3}, "B": {"found": 0, "total": 1}}
    assert members(SETS) == ["GENE-1", "GENE-2", "GENE-3", "GENE-4"]


def test_coverage_table():
    rows = coverage_table({"tumor": SETS}, ["GENE-1", "GENE-3", "X"])
    assert [list(row.values()) for row in rows] == [
        ["tumor", "A", 3, 2, pytest.approx(2 / 3), "GENE-2"],
        ["tumor", "B", 1, 0, 0.0, "GENE-4"],
    ]


def test_thin_sets_are_a_warning():
    warnings = check_coverage({"tumor": SETS}, ["GENE-1", "GENE-3"], min_genes=2)
    assert warnings == ["less than half of the genes are measured in 1 of 2 tumor sets: B 0 of 1"]


def test_a_subspace_with_few_genes_is_an_error():
    with pytest.raises(HistillError, match=r"2 of the 4 genes of the tumor sets.*min_genes asks for 3"):
        check_coverage({"tumor": SETS}, ["GENE-1", "GENE-3"], min_genes=3)


def test_a_set_with_few_genes_is_an_error_where_asked_for():
    with pytest.raises(HistillError, match=r"fewer than 2 genes of 1 of 2 tumor sets.*: B 0 of 1") as caught:
        check_coverage({"tumor": SETS}, ["GENE-1", "GENE-3"], min_genes=2, small_sets="error")
    assert "small_sets" in caught.value.mend
    assert check_coverage({"tumor": SETS}, ["GENE-1", "GENE-3", "GENE-4"], min_genes=1, small_sets="error") == []

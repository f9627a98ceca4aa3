import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import gene_sets
from histill.transcriptome.gene_sets import check_coverage, coverage, members, read_gmt, subspaces


def settings(**options):
    return config.complete({"results": "r", "cohort": {}, "transcriptome": {"gene_sets": options}})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tumor.gmt").write_text("A\tdescription\tG1\tG2\tSHARED\nB\t\tSHARED\n")
    (tmp_path / "micro.gmt").write_text("C\tdescription\tSHARED\tG3\n")
    return {"tumor": str(tmp_path / "tumor.gmt"), "microenvironment": str(tmp_path / "micro.gmt")}


def test_shipped_sets_are_clean():
    for space in gene_sets.SUBSPACES:
        sets = read_gmt(gene_sets.SHIPPED / f"{space}.gmt")
        assert 8 <= len(sets) <= 15
        for name, genes in sets.items():
            assert 20 <= len(genes) <= 60, name
            assert genes == sorted(genes), name
            assert all(gene == gene.upper().strip() for gene in genes), name


def test_shipped_sets_state_their_provenance():
    for space in gene_sets.SUBSPACES:
        for line in (gene_sets.SHIPPED / f"{space}.gmt").read_text().splitlines():
            assert "CC0-1.0" in line.split("\t")[1]


def test_null_paths_are_the_shipped_sets():
    spaces = subspaces(settings())
    assert {"CELL_CYCLE", "HYPOXIA"} <= spaces["tumor"].keys()
    assert {"T_CELLS", "FIBROBLASTS_ECM"} <= spaces["microenvironment"].keys()


@pytest.mark.parametrize(
    ("policy", "tumor", "microenvironment"),
    [
        ("both", {"A": ["G1", "G2", "SHARED"], "B": ["SHARED"]}, {"C": ["SHARED", "G3"]}),
        ("drop", {"A": ["G1", "G2"]}, {"C": ["G3"]}),
        ("tumor", {"A": ["G1", "G2", "SHARED"], "B": ["SHARED"]}, {"C": ["G3"]}),
        ("microenvironment", {"A": ["G1", "G2"]}, {"C": ["SHARED", "G3"]}),
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
        ("A\td\tG1\nA\td\tG2\n", "line 2.*second time"),
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
    path.write_text("A\td\tG2\tG1\tG2\t\t\r\n")
    assert read_gmt(path) == {"A": ["G2", "G1"]}


def test_coverage():
    sets = {"A": ["G1", "G2", "G3"], "B": ["G4"]}
    assert coverage(sets, ["G1", "G3", "X"]) == {"A": {"found": 2, "total": 3}, "B": {"found": 0, "total": 1}}
    assert members(sets) == ["G1", "G2", "G3", "G4"]
    warnings = check_coverage({"tumor": sets}, ["G1", "G3"], min_genes=2)
    assert warnings == ["less than half of the genes are measured in 1 of 2 tumor sets: B 0 of 1"]
    with pytest.raises(HistillError, match=r"2 of the 4 genes of the tumor sets.*min_genes asks for 3"):
        check_coverage({"tumor": sets}, ["G1", "G3"], min_genes=3)

import numpy as np
import pandas as pd
import pytest

from histill.errors import HistillError
from histill.transcriptome import identifiers_dates, identifiers_table
from histill.transcriptome.identifiers import ensembl_ids, group_columns, merge, read_annotation, resolve
from histill.transcriptome.identifiers_detect import genes_axis, kind, shares, summary_lines
from histill.transcriptome.read import load

GENES = ["TP53", "MYC", "EGFR", "CD8A", "COL1A1", "VEGFA", "MKI67", "novel1", "novel2"]
SAMPLES = [f"S{index}" for index in range(6)]
ENSEMBL = ["ENSG00000141510.17", "ENSG00000136997", "ENSG00000146648.19", "ENSG00000153563", "ENSG00000108821"]


def found(names, what="symbol", **options):
    table = resolve("x", names, what, **options)
    return table[["symbol", "found", "fate"]].values.tolist()


# The table


def test_the_table_has_one_row_a_symbol_and_the_genes_of_the_present():
    table = identifiers_table.genes()
    assert len(table) > 44_000
    assert table["symbol"].is_unique
    assert table["ensembl"].str.fullmatch(r"(ENSG\d{11})?").all()
    assert table["entrez"].str.fullmatch(r"\d*").all()
    assert list(table["symbol"]) == sorted(table["symbol"])


@pytest.mark.parametrize(
    ("what", "name", "symbol"),
    [
        ("current", "TP53", "TP53"),
        ("previous", "SEPT2", "SEPTIN2"),
        ("alias", "p53", "TP53"),
        ("ensembl", "ENSG00000141510", "TP53"),
        ("former", "ENSG00000112096", "SOD2"),
        ("entrez", "7157", "TP53"),
        ("previous", "QARS", "EPRS1|QARS1"),
    ],
)
def test_lookups(what, name, symbol):
    assert identifiers_table.index(what)[name] == symbol


# Detection


def test_axis_by_known_symbols():
    assert genes_axis("x", SAMPLES, GENES).value == "columns"
    assert genes_axis("x", GENES, SAMPLES).value == "rows"
    assert "7 of 9 row names" in genes_axis("x", GENES, SAMPLES).evidence


def test_axis_by_the_form_of_names():
    assert genes_axis("x", ENSEMBL, SAMPLES).value == "rows"
    assert genes_axis("x", SAMPLES, [f"LOC{i}|{i}" for i in range(6)]).value == "columns"


@pytest.mark.parametrize("rows", [SAMPLES, GENES])
def test_axis_without_evidence_is_refused(rows):
    columns = ["f1", "f2"] if rows is SAMPLES else GENES
    with pytest.raises(HistillError, match="which axis holds the genes") as caught:
        genes_axis("x", rows, columns)
    assert "transcriptome.matrix.genes" in caught.value.mend


def test_axis_as_set():
    assert genes_axis("x", GENES, SAMPLES, "columns").by == "config"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (GENES, "symbol"),
        (ENSEMBL, "ensembl"),
        ([*ENSEMBL * 3, "ENSG00000182378.15_PAR_Y", "__no_feature"], "ensembl"),
        (["TP53|7157", "?|100130426", "MYC|4609", "EGFR|1956", "CD8A|925"], "symbol_entrez"),
        (["7157", "4609", "1956", "925", "1277.0", "100133941"], "entrez"),
    ],
)
def test_kind(names, expected):
    assert kind("x", names).value == expected


def test_a_running_index_is_no_entrez_id():
    names = [str(number) for number in range(1, 3000)]
    assert shares(names)["entrez"] == 0
    with pytest.raises(HistillError, match="cannot tell what the 2999 gene names are") as caught:
        kind("x", names)
    assert "transcriptome.matrix.ids" in caught.value.mend


@pytest.mark.parametrize("names", [[*GENES[:7], *ENSEMBL], ["a", "b", "c", "d", "e"], GENES[:3]])
def test_kind_without_evidence_is_refused(names):
    with pytest.raises(HistillError, match="cannot tell what") as caught:
        kind("x", names)
    assert "transcriptome.matrix.ids" in caught.value.mend


@pytest.mark.parametrize("form", ["ENSMUSG000000{:05d}", "ENST00000{:06d}.3"])
def test_other_species_and_transcripts_are_refused(form):
    with pytest.raises(HistillError, match="transcripts, proteins or another species"):
        kind("x", [form.format(number) for number in range(20)])


# From names to symbols


def test_symbols_current_previous_and_alias():
    assert found(["TP53", "SEPT2", "HER2", " HLA-A ", "RP11-6L6.2"]) == [
        ["TP53", "current", "kept"],
        ["SEPTIN2", "previous", "renamed"],
        ["ERBB2", "alias", "renamed"],
        ["HLA-A", "current", "renamed"],
        ["", "", "dropped"],
    ]


def test_spellings():
    assert found(["HLA.A", "C10ORF90", "NKX2.1"]) == [
        ["HLA-A", "spelling", "renamed"],
        ["C10orf90", "spelling", "renamed"],
        ["NKX2-1", "spelling", "renamed"],
    ]


def test_names_of_other_species_are_not_bent_to_human_ones():
    assert [fate for *_, fate in found(["TP53", "Actb", "Trp53"])] == ["kept", "dropped", "dropped"]


def test_a_previous_name_beside_the_current_one_is_another_measurement():
    table = resolve("x", ["MICAL2", "MICALCL", "MICAL2"], "symbol")
    assert table["fate"].tolist() == ["merged", "dropped", "merged"]
    assert table["reason"][1] == "the table holds MICAL2 under a surer name"


def test_an_ambiguous_name_is_dropped_and_its_genes_are_told():
    table = resolve("x", ["TP53", "QARS"], "symbol")
    assert table.loc[1, ["symbol", "found", "fate"]].tolist() == ["", "ambiguous", "dropped"]
    assert table["reason"][1] == "could be any of EPRS1, QARS1"


@pytest.mark.parametrize("keep", [False, True])
def test_unknown_names(keep):
    table = resolve("x", ["TP53", "RP11-6L6.2", "4-Jul"], "symbol", keep_unknown=keep)
    assert table["symbol"].tolist() == ["TP53", "RP11-6L6.2" if keep else "", ""]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("2-Sep", "SEPTIN2"),
        ("02-Sep", "SEPTIN2"),
        ("Sep-02", "SEPTIN2"),
        ("2-sep-19", "SEPTIN2"),
        ("2019-09-02 00:00:00", "SEPTIN2"),
        ("5-Mar", "MARCHF5"),
        ("15-Sep", "SELENOF"),
        ("1-Dec", "DELEC1"),
        ("1-Mar", ""),
        ("4-Jul", ""),
    ],
)
def test_dates_made_by_spreadsheets(name, symbol):
    table = resolve("x", ["TP53", name], "symbol")
    assert table["symbol"][1] == symbol
    assert identifiers_dates.are_dates(table["given"]).tolist() == [False, True]


def test_the_ambiguous_date_names_both_genes():
    assert resolve("x", ["TP53", "1-Mar"], "symbol")["reason"][1] == "could be any of MARCHF1, MTARC1"


@pytest.mark.parametrize("name", ["NKX2-1", "HLA-A", "MARCHF1", "A2M-AS1", "SEPTIN2", "MARCH1", "DEC1"])
def test_genes_are_no_dates(name):
    assert not identifiers_dates.are_dates(pd.Series([name])).any()


def test_summary_lines_are_dropped():
    names = ["__no_feature", "N_unmapped", "TP53", "N_noFeature"]
    assert summary_lines([*names, "NKX2-1"]) == [0, 1, 3]
    table = resolve("x", names, "symbol", keep_unknown=True)
    assert table["symbol"].tolist() == ["", "", "TP53", ""]
    assert set(table["reason"]) == {"counts reads of no gene", ""}


def test_ensembl_ids_with_version_copies_and_former_ids():
    names = ["ENSG00000141510.17", "ENSG00000182378.15_PAR_Y", "ENSGR0000182378.10", "ENSG00000182378.15"]
    names += ["ENSG00000112096.18", "ENSG00000000003.14_TSPAN6", "ENSG00000999999", "ENSG00000175658"]
    table = resolve("x", names, "ensembl")
    assert table["symbol"].tolist() == ["TP53", "PLCXD1", "PLCXD1", "PLCXD1", "SOD2", "TSPAN6", "", ""]
    assert table["fate"].tolist() == ["renamed", *["merged"] * 3, *["renamed"] * 2, *["dropped"] * 2]
    assert table["reason"][7] == "could be any of DRD5P2, DRD5P3"


def test_ids_of_the_users_annotation_go_first():
    annotation = pd.Series({"ENSG00000999999": "SEPT2", "ENSG00000141510": "MYC"})
    names = ["ENSG00000999999.1", "ENSG00000141510", "ENSG00000146648"]
    assert resolve("x", names, "ensembl", annotation=annotation)["symbol"].tolist() == ["SEPTIN2", "MYC", "EGFR"]


def test_an_id_says_more_than_an_ambiguous_or_unknown_symbol_of_the_annotation():
    annotation = pd.Series({"ENSG00000172053": "QARS", "ENSG00000141510": "RP1-1.2", "ENSG00000999999": "RP1-3.4"})
    names = list(annotation.index)
    assert resolve("x", names, "ensembl", annotation=annotation)["symbol"].tolist() == ["QARS1", "TP53", ""]
    kept = resolve("x", names, "ensembl", annotation=annotation, keep_unknown=True)
    assert kept["symbol"].tolist() == ["QARS1", "TP53", "RP1-3.4"]


def test_genes_without_a_value_are_dropped():
    table = resolve("x", ["TP53", "MYC", "TP53"], "symbol", empty=[2])
    assert table["fate"].tolist() == ["kept", "kept", "dropped"]
    assert table["reason"][2] == "missing in every sample"


def test_entrez_ids():
    assert resolve("x", ["7157", "4609.0", "999999999"], "entrez")["symbol"].tolist() == ["TP53", "MYC", ""]


def test_pairs_go_by_the_number_and_fall_back_on_the_symbol():
    names = ["TP53|7157", "SLC35E2|728661", "SLC35E2|9906", "?|10357", "?|100130426", "MYC|999999999", "EGFR|1956"]
    symbols = ["TP53", "SLC35E2B", "SLC35E2A", "HMGB1P1", "", "MYC", "EGFR"]
    assert resolve("x", names, "symbol_entrez")["symbol"].tolist() == symbols


def test_numbers_of_pairs_that_are_no_entrez_ids_are_refused():
    names = [f"{gene}|{number}" for number, gene in enumerate(GENES[:7], start=1)]
    with pytest.raises(HistillError, match="are of different genes") as caught:
        resolve("x", names, "symbol_entrez")
    assert caught.value.mend.startswith("set transcriptome.matrix.ids to symbol")
    assert resolve("x", names, "symbol")["symbol"].tolist() == GENES[:7]


def test_a_table_without_any_gene_is_refused():
    with pytest.raises(HistillError, match="none of its 2 gene names"):
        resolve("x", ["zz_1", "zz_2"], "symbol")


def test_bare_ensembl_ids():
    names = pd.Series(["ENSG00000000003.14", "ENSG00000000003|TSPAN6", "ENSGR0000182378.10"])
    assert ensembl_ids(names).tolist() == ["ENSG00000000003", "ENSG00000000003", "ENSG00000182378"]


# The user's annotation


def test_annotation(tmp_path):
    (tmp_path / "a.tsv").write_text("gene_id\tlength\tgene_name\nENSG1.2\t5\tTP53\nENSG1.3\t5\tTP53\nENSG2\t6\tMYC\n")
    assert read_annotation(tmp_path / "a.tsv").to_dict() == {"ENSG1": "TP53", "ENSG2": "MYC"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,name\nE1,TP53\n", "no column of gene symbols"), ("id,symbol\nE1,TP53\nE1,MYC\n", "E1: TP53, MYC")],
)
def test_bad_annotation(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(HistillError, match=message):
        read_annotation(tmp_path / "a.csv")


# One column a symbol


@pytest.mark.parametrize(("average", "expected"), [(False, [[2, 4], [5, 8]]), (True, [[2, 2], [5, 4]])])
def test_merge_sorts_by_symbol(average, expected):
    values = np.array([[1, 2, 3, 9], [3, 5, 5, 9]], np.float32)
    table = resolve("x", ["TP53", "MYC", "TP53", "unknown"], "symbol")
    merged, genes = merge(values, table, average=average)
    np.testing.assert_array_equal(merged, expected)
    assert (genes, merged.dtype) == (["MYC", "TP53"], np.float32)


def test_grouping_in_blocks_equals_a_sum_at_once():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 1000, (600, 40)).astype(np.float32)
    codes = np.concatenate([np.arange(7), generator.integers(0, 7, 30)])
    columns = generator.permutation(40)[:37]
    expected = np.stack([values[:, columns[codes == group]].sum(axis=1) for group in range(7)], axis=1)
    np.testing.assert_array_equal(group_columns(values, columns, codes, 7, average=False), expected)


# Real data: 60 tumours of TCGA-BRCA


@pytest.fixture(scope="module")
def brca(shared_data):
    """Symbols and counts [60, genes]."""
    table = load(shared_data / "rna" / "tcga_brca_counts_60.tsv.gz")
    return table.rows, table.columns, table.values


@pytest.fixture(scope="module")
def ids_of_symbols(shared_data):
    """Symbol -> Ensembl id on the primary assembly, of the symbols with one id; and the table's path."""
    path = shared_data / "rna" / "gene_annotation_grch38.tsv.gz"
    table = pd.read_csv(path, sep="\t", dtype=str)
    table = table[table["chr"].isin([*map(str, range(1, 23)), "X", "Y", "MT"])][["id", "symbol"]].drop_duplicates()
    one = ~table["symbol"].duplicated(keep=False) & ~table["id"].duplicated(keep=False)
    return table[one].set_index("symbol")["id"], path


def matrix(path):
    """What the stage does with a table: axis, kind, symbols, sorted samples."""
    table = load(path)
    axis = genes_axis(str(path), table.rows, table.columns).value
    samples, genes, values = table.rows, table.columns, table.values
    if axis == "rows":
        samples, genes, values = table.columns, table.rows, table.values.T
    merged, symbols = merge(values, resolve(str(path), genes, kind(str(path), genes).value), average=False)
    return pd.DataFrame(merged, index=samples, columns=symbols).sort_index()


def test_real_counts_are_the_same_transposed_and_shuffled(brca, tmp_path):
    genes, samples, values = brca
    frame = pd.DataFrame(values, index=pd.Index(genes, name="gene"), columns=samples)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.T.rename_axis("sample_id").to_parquet(tmp_path / "columns.parquet")
    frame.sample(frac=1, random_state=3).to_csv(tmp_path / "shuffled.tsv.gz", sep="\t")
    expected = matrix(tmp_path / "rows.parquet")
    assert expected.shape[0] == 60
    assert expected.shape[1] > 19_000
    for name in ("columns.parquet", "shuffled.tsv.gz"):
        pd.testing.assert_frame_equal(matrix(tmp_path / name), expected, rtol=1e-6)


def test_real_counts_by_ensembl_id_are_those_by_symbol(brca, ids_of_symbols):
    """Through the shipped table where it knows the id, and through the annotation that they came from for all."""
    genes, _, values = brca
    ids, path = ids_of_symbols
    known = [position for position, gene in enumerate(genes) if gene in ids.index]
    assert len(known) > 19_000
    counts, names = values.T[:, known], [genes[position] for position in known]
    by_symbol = pd.DataFrame(*merge_frame(counts, resolve("x", names, "symbol")))
    versioned = [f"{ids[name]}.{len(name)}" for name in names]
    whole = pd.read_csv(path, sep="\t", dtype=str)[["id", "symbol"]].drop_duplicates().set_index("id")["symbol"]
    annotation = whole[~whole.index.duplicated()]
    by_annotation = pd.DataFrame(*merge_frame(counts, resolve("x", versioned, "ensembl", annotation=annotation)))
    pd.testing.assert_frame_equal(by_annotation[by_symbol.columns], by_symbol, rtol=1e-6)
    shipped = pd.DataFrame(*merge_frame(counts, resolve("x", versioned, "ensembl")))
    common = shipped.columns.intersection(by_symbol.columns)
    assert len(common) > 0.98 * len(by_symbol.columns)
    same = np.isclose(shipped[common], by_symbol[common], rtol=1e-6).all(axis=0)
    assert same.mean() > 0.999


def merge_frame(values, table):
    merged, symbols = merge(values, table, average=False)
    return merged, None, symbols


def test_real_names_are_listed_and_few_are_lost(brca):
    genes, _, values = brca
    table = resolve("x", genes, "symbol")
    assert (table["found"] == "previous").sum() > 900
    assert (table["reason"][table["fate"] == "dropped"] != "").all()
    lost = table["fate"] == "dropped"
    assert values[lost.to_numpy()].sum() < 0.005 * values.sum()


@pytest.mark.parametrize("setting", ["auto", "symbol"])
@pytest.mark.parametrize("spelt", [str.capitalize, str.lower])
def test_symbols_of_another_species_are_refused(setting, spelt):
    names = [spelt(name) for name in ("EGFR", "MYC", "CD8A", "COL1A1", "VEGFA", "KRAS")] + ["Trp53"]
    with pytest.raises(HistillError, match="6 of 7 gene names are human symbols only in capitals") as caught:
        kind("x", names, setting)
    assert "orthologues" in caught.value.mend


def test_a_few_small_letters_are_no_other_species():
    names = ["EGFR", "MYC", "CD8A", "COL1A1", "C1orf112", "Vegfa", "Kras"]
    assert kind("x", names, "symbol").by == "config"

import gzip
import zipfile

import numpy as np
import pandas as pd
import pytest

from histill.errors import HistillError
from histill.transcriptome.read import load, read_table

VALUES = np.array([[1, 2.5, 0], [4, 0, 1e6]], np.float32)
LINES = ["sample_id,TP53,MYC,EGFR", "S1,1,2.5,0", "S2,4,0,1000000"]


def check(path):
    values, rows, columns = read_table(path)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, VALUES)
    assert (rows, columns) == (["S1", "S2"], ["TP53", "MYC", "EGFR"])


def text(lines=LINES, delimiter=",", end="\n"):
    return end.join(line.replace(",", delimiter) for line in lines) + end


def test_csv(tmp_path):
    (tmp_path / "x.csv").write_text(text())
    check(tmp_path / "x.csv")


def test_tsv_with_byte_order_mark_comment_and_windows_line_ends(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"\xef\xbb\xbf# made by hand\r\n" + text(delimiter="\t", end="\r\n").encode())
    check(tmp_path / "x.tsv")


def test_blanks_around_names_are_no_part_of_them(tmp_path):
    """The sheets drop them too: a sample 'S1 ' would be nobody's."""
    (tmp_path / "x.csv").write_text(text(["sample_id,TP53,MYC ,EGFR", "S1 ,1,2.5,0", '" S2",4,0,1000000']))
    check(tmp_path / "x.csv")


def test_gz(tmp_path):
    with gzip.open(tmp_path / "x.tsv.gz", "wt") as handle:
        handle.write(text(delimiter="\t"))
    check(tmp_path / "x.tsv.gz")


def test_zip_of_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/matrix.csv", text())
        archive.writestr("__MACOSX/folder/._matrix.csv", "x")
    check(tmp_path / "x.zip")


def test_zip_of_two_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.csv", text())
        archive.writestr("b.csv", text())
    with pytest.raises(HistillError, match="2 files"):
        load(tmp_path / "x.zip")


def test_header_of_r_without_a_name_for_the_row_names(tmp_path):
    (tmp_path / "x.csv").write_text(text(["TP53,MYC,EGFR", *LINES[1:]]))
    check(tmp_path / "x.csv")


@pytest.mark.parametrize("first", ["", "whatever", "Hugo_Symbol"])
def test_row_names_are_the_first_column(tmp_path, first):
    (tmp_path / "x.csv").write_text(text([f"{first},TP53,MYC,EGFR", *LINES[1:]]))
    check(tmp_path / "x.csv")


def test_running_index_is_no_gene(tmp_path):
    (tmp_path / "x.csv").write_text(text([",sample_id,TP53,MYC,EGFR", "0,S1,1,2.5,0", "1,S2,4,0,1000000"]))
    check(tmp_path / "x.csv")


def test_fraction_far_below_whole_numbers(tmp_path):
    lines = ["s,A", *(f"S{index},1" for index in range(20_000)), "last,0.5"]
    (tmp_path / "x.csv").write_text(text(lines))
    assert load(tmp_path / "x.csv").values[-1, 0] == 0.5


def test_repeated_names_stay(tmp_path):
    (tmp_path / "x.csv").write_text("s,A,A\nx,1,2\nx,3,4\n")
    table = load(tmp_path / "x.csv")
    assert (table.rows, table.columns, table.values.tolist()) == (["x", "x"], ["A", "A"], [[1, 2], [3, 4]])


def test_missing_cells_are_nan(tmp_path):
    (tmp_path / "x.csv").write_text("s,A,B,C\nx,NA,,nan\ny,1,2,3\n")
    assert np.isnan(load(tmp_path / "x.csv").values[0]).all()


@pytest.mark.parametrize("cell", ["12x", "1_000", "<LOD", "high"])
def test_cell_that_is_no_number_is_named(tmp_path, cell):
    (tmp_path / "x.csv").write_text(f"s,A,B\nx,1,2\ny,3,{cell}\n")
    with pytest.raises(HistillError, match=f"column 'B', row 'y' holds '{cell}'"):
        load(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("s,A,B\nx,1,2\ny,3\n", "Expected 3 columns"),
        ("s,A,B\n", "no data"),
        ("", "no data"),
        ("s\nx\n", "no numbers"),
        ("s,A\n,1\n", "data row 1 has no name"),
        ("sample_id,patient_id,A\nS1,,1\n", "sample 'S1' has no patient_id"),
    ],
)
def test_bad_text(tmp_path, content, message):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(HistillError, match=message):
        load(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.xlsx", "absent.csv", "broken.parquet", "broken.csv.gz", "broken.h5ad"])
def test_unreadable_files_are_named(tmp_path, name):
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(HistillError, match=name) as caught:
        load(tmp_path / name)
    assert caught.value.mend


@pytest.mark.parametrize("how", ["column", "named index", "unnamed index"])
def test_parquet(tmp_path, how):
    import pandas as pd

    frame = pd.DataFrame(VALUES, columns=["TP53", "MYC", "EGFR"])
    if how == "column":
        frame.insert(3, "patient_id", ["S1", "S2"])
    else:
        frame.index = pd.Index(["S1", "S2"], name="anything" if how == "named index" else None)
    frame.to_parquet(tmp_path / "x.parquet")
    check(tmp_path / "x.parquet")


def test_parquet_with_text_in_a_gene(tmp_path):
    import pandas as pd

    pd.DataFrame({"sample_id": ["S1"], "A": ["1.5"], "B": ["low"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(HistillError, match="column 'B', row 'S1' holds 'low'"):
        load(tmp_path / "x.parquet")


@pytest.mark.parametrize("sparse", [False, True])
def test_h5ad(tmp_path, sparse):
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    obs = pd.DataFrame({"patient_id": ["P1", "P1"]}, index=["S1", "S2"])
    var = pd.DataFrame(index=["TP53", "MYC", "EGFR"])
    anndata.AnnData(csr_matrix(VALUES) if sparse else VALUES, obs=obs, var=var).write_h5ad(tmp_path / "x.h5ad")
    check(tmp_path / "x.h5ad")
    assert load(tmp_path / "x.h5ad").patients == ["P1", "P1"]


def test_patients_beside_samples(tmp_path):
    (tmp_path / "x.csv").write_text("patient_id,sample_id,A\nP1,S1,1\nP1,S2,2\n")
    table = load(tmp_path / "x.csv")
    assert (table.rows, table.patients, table.columns) == (["S1", "S2"], ["P1", "P1"], ["A"])


def test_rows_with_one_cell_too_many_do_not_shift(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("gene,s1,s2\nTP53,1,2,\nEGFR,3,4,\n")
    with pytest.raises(HistillError, match="the first row has 4 cells, the header 3"):
        load(path)


@pytest.mark.parametrize("name", ["id", "", "Sample ID", "submitter_id"])
def test_delimiters_at_the_ends_of_lines_move_no_values(name, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"{name},TP53,EGFR\nS1,1,2,\nS2,3,4,\n")
    with pytest.raises(HistillError, match="the first row has 4 cells, the header 3"):
        load(path)


def test_whole_numbers_that_pandas_made_fractions_stay_ids(tmp_path):
    path = tmp_path / "m.parquet"
    pd.DataFrame({"sample_id": ["a", "b"], "patient_id": [1.0, 22.0], "TP53": [1, 2]}).to_parquet(path)
    assert load(path).patients == ["1", "22"]


def test_feature_counts(tmp_path):
    lines = [
        '# Program:featureCounts v2.0.6; Command:"featureCounts" "-a" "genes.gtf"',
        "Geneid\tChr\tStart\tEnd\tStrand\tLength\tbam/S1.Aligned.sortedByCoord.out.bam\tbam/S2.sorted.bam",
        "ENSG00000141510\tchr17;chr17\t1;5\t2;9\t-;-\t7\t3\t4",
        "ENSG00000136997\tchr8\t1\t2\t+\t2\t5\t6",
    ]
    (tmp_path / "counts.txt").write_text("\n".join(lines) + "\n")
    table = load(tmp_path / "counts.txt")
    assert (table.rows, table.columns) == (["ENSG00000141510", "ENSG00000136997"], ["S1", "S2"])
    assert table.values.tolist() == [[3, 4], [5, 6]]
    assert {name: finding.value for name, finding in table.findings.items()} == {"genes": "rows", "unit": "counts"}


def test_columns_about_genes_are_no_samples(tmp_path):
    (tmp_path / "x.tsv").write_text("gene_id\tgene_name\tgene_type\tS1\nENSG1\tTP53\tprotein_coding\t4\n")
    table = load(tmp_path / "x.tsv")
    assert (table.rows, table.columns, table.values.tolist()) == (["ENSG1"], ["S1"], [[4]])


@pytest.mark.parametrize("rows", [3, 2500])
def test_parquet_of_any_type_in_batches(tmp_path, rows):
    frame = pd.DataFrame({"s": [f"S{i}" for i in range(rows)], "A": range(rows), "B": np.linspace(0, 1, rows)})
    frame["C"] = pd.array([None, *range(rows - 1)], dtype="Int64")
    frame["D"] = [True] + [False] * (rows - 1)
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=1000)
    table = load(tmp_path / "x.parquet")
    expected = frame[["A", "B", "C", "D"]].astype("float32").to_numpy()
    np.testing.assert_array_equal(table.values, expected)
    assert table.rows == frame["s"].tolist()


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_header_that_begins_like_a_comment(tmp_path, delimiter):
    path = tmp_path / "x.txt"
    path.write_text(text(["# made by hand, long ago", "#sample_id,TP53,MYC,EGFR", *LINES[1:]], delimiter))
    check(path)


def test_a_comment_with_delimiters_is_no_header(tmp_path):
    (tmp_path / "x.csv").write_text(text(["#from,some,other,place", *LINES]))
    check(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.gct", "x.txt"])
def test_gct(tmp_path, name):
    lines = ["#1.2", "2\t2", "Name\tDescription\tS1\tS2", "ENSG1.5\tTP53\t1\t2.5", "ENSG2.1\tMYC\t3\t4"]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    table = load(tmp_path / name)
    assert (table.rows, table.columns, table.left_out) == (["ENSG1.5", "ENSG2.1"], ["S1", "S2"], ["Description"])
    assert table.values.tolist() == [[1, 2.5], [3, 4]]


def test_ids_written_as_fractions_are_those_of_parquet(tmp_path):
    frame = pd.DataFrame({"sample_id": ["a", "b", "c"], "patient_id": [1.0, 22.0, 1.0], "TP53": [1, 2, 3]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    assert load(tmp_path / "x.csv").patients == load(tmp_path / "x.parquet").patients == ["1", "22", "1"]
    (tmp_path / "y.csv").write_text("sample_id,patient_id,TP53\na,1.0,1\nb,P2,2\n")
    assert load(tmp_path / "y.csv").patients == ["1.0", "P2"]


def test_gct_with_annotations_is_refused(tmp_path):
    (tmp_path / "x.gct").write_text("#1.3\n1\t1\t1\t0\nid\tDescription\tS1\nTP53\tx\t4\n")
    with pytest.raises(HistillError, match=r"is GCT 1.3") as caught:
        load(tmp_path / "x.gct")
    assert "GCT 1.2" in caught.value.mend


@pytest.mark.parametrize(
    "header",
    [
        "gene_id gene_name gene_type unstranded stranded_first stranded_second tpm_unstranded",
        "target_id length eff_length est_counts tpm",
        "Name Length EffectiveLength TPM NumReads",
        "gene_id transcript_id(s) length effective_length expected_count TPM FPKM",
    ],
)
def test_a_file_of_one_sample_is_no_table(tmp_path, header):
    (tmp_path / "x.tsv").write_text(header.replace(" ", "\t") + "\n" + "\t".join("1" * len(header.split())) + "\n")
    with pytest.raises(HistillError, match="holds one sample") as caught:
        load(tmp_path / "x.tsv")
    assert "folder" in caught.value.mend

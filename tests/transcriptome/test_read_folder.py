import gzip

import h5py
import numpy as np
import pytest

from histill.errors import HistillError
from histill.transcriptome.read_folder import load_folder
from histill.transcriptome.read_transcripts import read_tx2gene, to_genes

GENES = ["ENSG00000141510.17", "ENSG00000136997.20", "ENSG00000146648.19"]
TX2GENE = {"ENST1.1": "ENSG00000141510.17", "ENST2.1": "ENSG00000141510.17", "ENST3.4": "ENSG00000136997.20"}


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join("\t".join(map(str, line)) for line in lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def gdc(folder, name, counts, genes=GENES):
    lines = [["# gene-model: GENCODE v36"]]
    header = "gene_id gene_name gene_type unstranded stranded_first stranded_second tpm_unstranded fpkm_unstranded"
    lines.append([*header.split(), "fpkm_uq_unstranded"])
    lines += [["N_unmapped", "", "", 99, 99, 99, "", "", ""]]
    lines += [[g, "x", "protein_coding", n, n - 1, 1, n / 2, n / 4, n / 8] for g, n in zip(genes, counts, strict=True)]
    write(folder / f"uuid-{name}" / f"{name}.rna_seq.augmented_star_gene_counts.tsv", lines)


def sheet(path, samples):
    lines = [["File ID", "File Name", "Case ID", "Sample ID"]]
    for name, sample in samples.items():
        lines.append([f"uuid-{name}", f"{name}.rna_seq.augmented_star_gene_counts.tsv", sample[:12], sample])
    write(path, lines)


SAMPLES = {"b": "TCGA-AA-0001-01A", "a": "TCGA-AA-0002-01A"}


@pytest.fixture
def gdc_folder(tmp_path):
    gdc(tmp_path / "gdc", "b", [1, 2, 3])
    gdc(tmp_path / "gdc", "a", [6, 4, 5], [GENES[2], *GENES[:2]])
    write(tmp_path / "gdc" / "MANIFEST.txt", [["id", "filename"]])
    sheet(tmp_path / "sheet.tsv", SAMPLES)
    return tmp_path / "gdc"


def test_gdc_folder(gdc_folder, tmp_path):
    table = load_folder(gdc_folder, sheet=tmp_path / "sheet.tsv")
    assert (table.rows, table.columns) == (
        ["TCGA-AA-0002-01A", "TCGA-AA-0001-01A"],
        ["N_unmapped", GENES[2], *GENES[:2]],
    )
    assert table.patients == ["TCGA-AA-0002", "TCGA-AA-0001"]
    np.testing.assert_array_equal(table.values, [[99, 6, 4, 5], [99, 3, 1, 2]])
    assert table.values.dtype == np.float32
    assert table.findings["unit"].value == "counts"
    assert table.findings["strand"].value == "unstranded"
    assert table.findings["sheet"].by == "config"


@pytest.mark.parametrize(
    ("unit", "strand", "value"), [("tpm", "auto", 3), ("counts", "first", 5), ("fpkm", "auto", 1.5)]
)
def test_other_columns_of_gdc(gdc_folder, tmp_path, unit, strand, value):
    table = load_folder(gdc_folder, unit=unit, strand=strand, sheet=tmp_path / "sheet.tsv")
    assert table.values[0, 1] == value
    if unit != "counts":
        assert np.isnan(table.values[0, 0])  # summary lines have no TPM
    assert table.findings["unit"].by == "config"


def test_the_sheet_of_the_portal_in_the_folder_is_found(gdc_folder):
    sheet(gdc_folder / "gdc_sample_sheet.2026-01-01.tsv", SAMPLES)
    table = load_folder(gdc_folder)
    assert table.rows[0] == "TCGA-AA-0002-01A"
    assert table.findings["sheet"].by == "detected"


def test_gdc_without_a_sheet_is_refused(gdc_folder):
    with pytest.raises(HistillError, match="do not say whose they are") as caught:
        load_folder(gdc_folder)
    assert "transcriptome.matrix.sheet" in caught.value.mend


def test_a_file_that_the_sheet_does_not_name(gdc_folder, tmp_path):
    sheet(tmp_path / "short.tsv", {"a": "TCGA-AA-0002-01A"})
    with pytest.raises(HistillError, match=r"does not name 1 of 2 files, such as b\.rna_seq"):
        load_folder(gdc_folder, sheet=tmp_path / "short.tsv")


def test_two_files_of_one_sample(gdc_folder, tmp_path):
    sheet(tmp_path / "same.tsv", {"a": "TCGA-AA-0002-01A", "b": "TCGA-AA-0002-01A"})
    with pytest.raises(HistillError, match="are both of sample 'TCGA-AA-0002-01A'"):
        load_folder(gdc_folder, sheet=tmp_path / "same.tsv")


def test_files_with_other_genes(gdc_folder, tmp_path):
    gdc(gdc_folder, "b", [1, 2], GENES[:2])
    with pytest.raises(HistillError, match=r"has other rows \(3\) than .*\(4\)"):
        load_folder(gdc_folder, sheet=tmp_path / "sheet.tsv")


def test_a_file_without_its_column(tmp_path):
    write(tmp_path / "S1.genes.results", [["gene_id", "TPM"], ["A", 1]])
    with pytest.raises(HistillError, match="has no column expected_count"):
        load_folder(tmp_path)


def test_a_broken_file(tmp_path):
    write(tmp_path / "S1.genes.results", [["gene_id", "expected_count"], ["A", "many"]])
    with pytest.raises(HistillError, match=r"S1\.genes\.results cannot be read as RSEM"):
        load_folder(tmp_path)


def test_a_folder_of_nothing_known(tmp_path):
    write(tmp_path / "notes.txt", [["x"]])
    with pytest.raises(HistillError, match="holds no file of a known tool"):
        load_folder(tmp_path)


def test_a_folder_of_two_tools(tmp_path):
    write(tmp_path / "S1.genes.results", [["gene_id", "expected_count"], ["A", 1]])
    write(tmp_path / "S2" / "quant.sf", [["Name", "NumReads"], ["T", 1]])
    with pytest.raises(HistillError, match="holds files of RSEM and salmon"):
        load_folder(tmp_path)


# STAR: the strand


def star(folder, sample, first, second):
    lines = [["N_unmapped", 5, 5, 5], ["N_noFeature", 9, 900, 9]]
    lines += [[gene, first + second, first, second] for gene in GENES]
    write(folder / f"{sample}_ReadsPerGene.out.tab.gz", lines)


@pytest.mark.parametrize(
    ("reads", "strand", "value"), [((1, 99), "second", 99), ((95, 5), "first", 95), ((52, 48), "unstranded", 100)]
)
def test_the_strand_of_star_is_seen_by_the_reads(tmp_path, reads, strand, value):
    for sample in ("S1", "S2"):
        star(tmp_path, sample, *reads)
    table = load_folder(tmp_path)
    assert table.rows == ["S1", "S2"]
    assert (table.findings["strand"].value, table.findings["strand"].by) == (strand, "detected")
    assert table.values[0, 2] == value


def test_a_strand_in_doubt_is_refused_and_can_be_set(tmp_path):
    star(tmp_path, "S1", 1, 99)
    star(tmp_path, "S2", 50, 50)
    with pytest.raises(HistillError, match="cannot tell the strand") as caught:
        load_folder(tmp_path)
    assert "transcriptome.matrix.strand" in caught.value.mend
    assert load_folder(tmp_path, strand="second").values[0, 2] == 99


def test_a_unit_that_the_tool_does_not_give(tmp_path):
    star(tmp_path, "S1", 1, 99)
    with pytest.raises(HistillError, match="files of STAR hold counts, no tpm"):
        load_folder(tmp_path, unit="tpm")


# Tools that name the sample by file or folder

FEATURE_COUNTS = ["Geneid", "Chr", "Start", "End", "Strand", "Length", "a/b.bam"]


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("S1.genes.results", [["gene_id", "transcript_id(s)", "expected_count", "TPM"], [GENES[0], "x", 1.5, 7]]),
        ("S1.htseq.counts.gz", [[GENES[0], 1.5], ["__no_feature", 9]]),
        (
            "S1.featureCounts.txt",
            [["# x"], FEATURE_COUNTS, [GENES[0], "1", 1, 2, "+", 2, 1.5]],
        ),
        ("S1/quant.genes.sf", [["Name", "Length", "EffectiveLength", "TPM", "NumReads"], [GENES[0], 9, 9, 7, 1.5]]),
    ],
)  # fmt: skip
def test_one_gene_file_a_sample(tmp_path, file, lines):
    write(tmp_path / file, lines)
    table = load_folder(tmp_path)
    assert table.rows == ["S1"]
    assert table.columns[0] == GENES[0]
    assert table.values[0, 0] == 1.5


# Transcripts to genes


def salmon(folder, sample, counts, names=("ENST1.1", "ENST2.1", "ENST3.4")):
    lines = [["Name", "Length", "EffectiveLength", "TPM", "NumReads"]]
    lines += [[name, 100, 80, count / 10, count] for name, count in zip(names, counts, strict=True)]
    write(folder / sample / "quant.sf", lines)


def tx2gene(path, table=TX2GENE, header=("TXNAME", "GENEID")):
    write(path, [header, *table.items()] if header else table.items())
    return path


def test_transcripts_are_summed_to_genes(tmp_path):
    salmon(tmp_path / "q", "S1", [1.5, 2, 4])
    salmon(tmp_path / "q", "S2", [0, 2, 8])
    table = load_folder(tmp_path / "q", tx2gene=tx2gene(tmp_path / "t.tsv"))
    assert (table.rows, table.columns) == (["S1", "S2"], ["ENSG00000136997.20", "ENSG00000141510.17"])
    np.testing.assert_array_equal(table.values, [[4, 3.5], [8, 2]])
    assert table.findings["transcripts"].evidence == "3 of 3 transcripts summed to 2 genes by t.tsv"
    tpm = load_folder(tmp_path / "q", unit="tpm", tx2gene=tmp_path / "t.tsv")
    np.testing.assert_allclose(tpm.values, table.values / 10)


def test_transcripts_without_a_table_are_refused(tmp_path):
    salmon(tmp_path, "S1", [1, 2, 4])
    with pytest.raises(HistillError, match="rows are transcripts") as caught:
        load_folder(tmp_path)
    assert "transcriptome.matrix.tx2gene" in caught.value.mend


def test_gencode_names_carry_the_gene(tmp_path):
    names = [f"{transcript}|{gene}|x|y|TP53|100|" for transcript, gene in TX2GENE.items()]
    salmon(tmp_path, "S1", [1, 2, 4], names)
    table = load_folder(tmp_path)
    np.testing.assert_array_equal(table.values, [[4, 3]])
    assert table.findings["transcripts"].by == "detected"


@pytest.mark.parametrize("name", ["{}", "{}/quant.sf", "q/{}/quant.sf", "elsewhere/{}/quant.sf"])
def test_a_sheet_for_files_of_one_name(tmp_path, name):
    for sample in ("s1", "s2"):
        salmon(tmp_path / "q", sample, [1, 2, 4])
    write(tmp_path / "sheet.tsv", [["file", "sample_id"], [name.format("s2"), "B"], [name.format("s1"), "A"]])
    options = {"sheet": tmp_path / "sheet.tsv", "tx2gene": tx2gene(tmp_path / "t.tsv")}
    if name.startswith(("q/", "elsewhere/")):
        with pytest.raises(HistillError, match="does not name 2 of 2 files"):
            load_folder(tmp_path / "q", **options)
    else:
        assert load_folder(tmp_path / "q", **options).rows == ["A", "B"]


def test_versions_of_transcripts_may_differ(tmp_path):
    salmon(tmp_path / "q", "S1", [1, 2, 4], ["ENST1.7", "ENST2.7", "ENST3.7"])
    table = load_folder(tmp_path / "q", tx2gene=tx2gene(tmp_path / "t.tsv"))
    np.testing.assert_array_equal(table.values, [[4, 3]])


def test_a_table_of_another_annotation_is_refused(tmp_path):
    salmon(tmp_path / "q", "S1", [1, 2, 4], ["ENST1.1", "ENST8.1", "ENST9.1"])
    with pytest.raises(HistillError, match=r"gives no gene for 67% .*'ENST8.1'"):
        load_folder(tmp_path / "q", tx2gene=tx2gene(tmp_path / "t.tsv"))


def test_transcripts_of_one_table(tmp_path):
    values = np.array([[1, 2, 4]], np.float32)
    genes, summed, finding = to_genes(tmp_path, np.array(list(TX2GENE)), values, tx2gene(tmp_path / "t.tsv"))
    assert genes.tolist() == ["ENSG00000136997.20", "ENSG00000141510.17"]
    np.testing.assert_array_equal(summed, [[4, 3]])
    assert finding.by == "config"


def test_kallisto_as_text_or_hdf5(tmp_path):
    lines = [["target_id", "length", "eff_length", "est_counts", "tpm"], *([name, 9, 9, 1.5, 3] for name in TX2GENE)]
    write(tmp_path / "text" / "S1" / "abundance.tsv", lines)
    (tmp_path / "hdf5" / "S1").mkdir(parents=True)
    for folder in ("text", "hdf5"):
        with h5py.File(tmp_path / folder / "S1" / "abundance.h5", "w") as handle:
            handle["aux/ids"] = np.array(list(TX2GENE), "S10")
            handle["est_counts"] = np.full(3, 1.5)
    table = tx2gene(tmp_path / "t.tsv", header=None)
    for folder in ("text", "hdf5"):
        np.testing.assert_array_equal(load_folder(tmp_path / folder, tx2gene=table).values, [[1.5, 3]])


def test_samples_in_the_lesser_form_alone_are_not_lost(tmp_path):
    salmon(tmp_path, "S1", [1, 2, 4])
    salmon(tmp_path, "S2", [1, 2, 4])
    write(tmp_path / "S1" / "quant.genes.sf", [["Name", "NumReads"], [GENES[0], 1]])
    with pytest.raises(HistillError, match=r"'S2' has only quant\.sf"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no columns of transcripts and genes"), ("tx,gene\nt1,g1\nt1,g2\n", "'t1' has several genes")],
)
def test_bad_tables_of_transcripts(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(HistillError, match=message):
        read_tx2gene(tmp_path / "t.csv")

import json

import numpy as np
import pytest

from histill import config
from histill.errors import HistillError
from histill.transcriptome import matrix as reading
from histill.transcriptome import stage
from histill.transcriptome.gene_sets import check_coverage, coverage, members, subspaces

GENES = ["CD8A", "COL1A1", "EGFR", "MYC", "TP53", "VEGFA"]


def settings(unit="counts", gene_sets=None, **matrix):
    sets = {"min_genes": 1, "small_sets": "keep"} | (gene_sets or {})
    transcriptome = {"matrix": {"unit": unit, **matrix}, "gene_sets": sets}
    return config.complete({"results": "r", "cohort": {}, "transcriptome": transcriptome})


@pytest.fixture
def matrix(tmp_path):
    """Counts with genes as rows: a symbol twice, a name of no gene, a summary line, a gene missing everywhere."""
    lines = ["gene_id\tS2\tS1", *(f"{gene}\t{10 * i}\t{i + 100}" for i, gene in enumerate(GENES))]
    lines += ["TP53\t5\t7", "?\t50\t60", "__no_feature\t9999\t9999", "IL6\tNA\tNA"]
    path = tmp_path / "counts.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_counts_end_to_end(matrix, tmp_path):
    import anndata

    receipt = stage.run(path=matrix, config=settings(), results=tmp_path)
    table = anndata.read_h5ad(tmp_path / stage.OUTPUT)
    assert list(table.obs_names) == list(table.obs["patient_id"]) == ["S1", "S2"]
    assert list(table.var_names) == GENES
    np.testing.assert_array_equal(table.layers["counts"][:, GENES.index("TP53")], [104 + 7, 40 + 5])
    library = np.array([615 + 7 + 60, 150 + 5 + 50])  # summary line and missing gene are no reads of genes
    np.testing.assert_allclose(table.X, np.log2(table.layers["counts"] * (1e6 / library)[:, None] + 1), rtol=1e-5)
    record = json.loads(table.uns["histill"])
    assert (record["unit"], record["scale"]) == ("counts", "log2(CPM + 1)")
    assert record["findings"]["unit"]["by"] == "config"
    assert record["findings"]["genes"]["by"] == record["findings"]["ids"]["by"] == "detected"
    assert receipt["counts"] == {
        "samples": 2, "patients": 2, "genes": 6, "kept_names": 5, "renamed_names": 0, "merged_names": 2,
        "dropped_names": 3, "dropped_samples": 0, "outliers": 0,
    }  # fmt: skip
    assert any("is of names that lead to no symbol" in text for text in receipt["warnings"])
    assert receipt == json.loads((tmp_path / "receipts" / "transcriptome.json").read_text())


def test_the_fate_of_every_name_and_the_coverage_are_listed(matrix, tmp_path):
    import pandas

    receipt = stage.run(path=matrix, config=settings(), results=tmp_path)
    genes = pandas.read_parquet(tmp_path / stage.GENES)
    assert list(genes.columns) == ["given", "symbol", "found", "fate", "reason"]
    dropped = genes[genes["fate"] == "dropped"].set_index("given")["reason"].to_dict()
    assert dropped == {
        "?": "has no name", "IL6": "missing in every sample", "__no_feature": "counts reads of no gene"
    }  # fmt: skip
    sets = pandas.read_parquet(tmp_path / stage.COVERAGE)
    assert set(sets["subspace"]) == {"tumor", "microenvironment"}
    assert sets["found"].sum() == sum(c["found"] for own in receipt["coverage"].values() for c in own.values())
    samples = pandas.read_parquet(tmp_path / stage.SAMPLES)
    assert samples["library_size"].tolist() == [682.0, 205.0]
    assert samples["detected_genes"].tolist() == [6, 5]
    assert {"pc1", "pc2", "tumor:ssgsea", "microenvironment:mean_z"} <= set(samples.columns)


def test_the_files_that_explain_a_table_are_inputs(matrix, tmp_path):
    annotation = tmp_path / "symbols.tsv"
    annotation.write_text("id\tsymbol\nENSG00000141510\tTP53\n")
    lengths = tmp_path / "lengths.tsv"
    lengths.write_text("gene\tlength\n" + "".join(f"{gene}\t{1000 * (i + 1)}\n" for i, gene in enumerate(GENES)))
    options = {"annotation": str(annotation), "gene_lengths": str(lengths), "count_scale": "tpm"}
    receipt = stage.run(path=matrix, config=settings(**options), results=tmp_path)
    assert set(receipt["inputs"]) == {"expression", "annotation", "gene_lengths", "gene_sets"}
    _, x, _ = stage.by_patient(tmp_path / stage.OUTPUT)
    np.testing.assert_allclose((np.exp2(x) - 1).sum(axis=1), 1e6, rtol=1e-5)
    _, counts, _ = stage.by_patient(tmp_path / stage.OUTPUT, layer="counts")
    rate = counts / (1000 * np.arange(1, 7))
    np.testing.assert_allclose(np.exp2(x) - 1, 1e6 * rate / rate.sum(axis=1, keepdims=True), rtol=1e-4)
    lengths.write_text(lengths.read_text().replace("3000", "3001"))
    again = stage.run(path=matrix, config=settings(**options), results=tmp_path)
    changed = {key for key in again["inputs"] if again["inputs"][key] != receipt["inputs"][key]}
    assert changed == {"gene_lengths"}


def test_genes_without_a_length_are_dropped_and_listed(matrix, tmp_path):
    import pandas

    names = [*GENES, "ACTB", "GAPDH", "B2M", "KRAS", "NRAS", "HRAS", "CD4"]
    path, lengths = tmp_path / "few.csv", tmp_path / "lengths.csv"
    path.write_text("gene,P1,P2\n" + "".join(f"{gene},{i + 1},{9 * i + 5}\n" for i, gene in enumerate(names)))
    lengths.write_text("gene,length\n" + "".join(f"{gene},500\n" for gene in names[:-1]))
    stage.run(path=path, config=settings(count_scale="fpkm", gene_lengths=str(lengths)), results=tmp_path)
    fates = pandas.read_parquet(tmp_path / stage.GENES).set_index("given")
    assert fates.loc["CD4", ["fate", "symbol", "reason"]].tolist() == ["dropped", "", "has no length in lengths.csv"]
    assert "CD4" not in stage.by_patient(tmp_path / stage.OUTPUT)[2]


def test_a_folder_of_samples_and_a_log_of_counts(matrix, tmp_path):
    folder = tmp_path / "star"
    folder.mkdir()
    logs = ["sample_id," + ",".join(GENES)]
    for sample, factor in (("A", 3), ("B", 500)):
        rows = [f"{gene}\t{factor * i}\t0\t0" for i, gene in enumerate(GENES)]
        header = [f"{name}\t9\t9\t9" for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")]
        (folder / f"{sample}ReadsPerGene.out.tab").write_text("\n".join(header + rows) + "\n")
        logs.append(f"{sample}," + ",".join(f"{np.log2(factor * i + 1):.6f}" for i in range(6)))
    (tmp_path / "logs.csv").write_text("\n".join(logs) + "\n")
    files = stage.run(path=folder, config=settings(strand="unstranded", ids="symbol"), results=tmp_path / "a")
    stage.run(path=tmp_path / "logs.csv", config=settings("log2_counts"), results=tmp_path / "b")
    first, second = (stage.by_patient(tmp_path / name / stage.OUTPUT, layer="counts") for name in "ab")
    assert first[0] == second[0] == ["A", "B"]
    np.testing.assert_array_equal(first[1], second[1])
    (folder / "AReadsPerGene.out.tab").write_text((folder / "BReadsPerGene.out.tab").read_text())
    again = stage.run(path=folder, config=settings(strand="unstranded", ids="symbol"), results=tmp_path / "a")
    assert again["inputs"]["expression"] != files["inputs"]["expression"]


def test_previous_symbols_of_a_users_set_are_found(matrix, tmp_path):
    path = tmp_path / "own.gmt"
    path.write_text("OWN\td\tp53\tENSG1\tERBB1\tTP53\tCOL1A1\n")
    receipt = stage.run(path=matrix, config=settings(gene_sets={"tumor": str(path)}), results=tmp_path)
    assert receipt["coverage"]["tumor"]["OWN"]["found"] == 3


def test_the_receipt_depends_on_content_alone(matrix, tmp_path):
    first = stage.run(path=matrix, config=settings(), results=tmp_path / "a")
    assert stage.run(path=matrix, config=settings(), results=tmp_path / "b") == first
    matrix.write_text(matrix.read_text().replace("MYC\t30", "MYC\t31"))
    changed = stage.run(path=matrix, config=settings(), results=tmp_path / "b")
    assert changed["outputs"] != first["outputs"]
    assert changed["recipe"] == first["recipe"]
    assert changed["inputs"] != first["inputs"]


def test_a_refused_matrix_leaves_nothing(matrix, tmp_path):
    with pytest.raises(HistillError, match=r"counts\.tsv"):
        stage.run(path=matrix, config=settings("zscore"), results=tmp_path)
    assert not (tmp_path / "transcriptome").exists()
    assert not (tmp_path / "receipts").exists()


def test_duplicate_samples_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sample_id," + ",".join(GENES) + "\nS1,1,2,3,4,5,6\nS1,1,2,3,4,5,6\n")
    with pytest.raises(HistillError, match="such as 'S1'"):
        stage.run(path=path, config=settings(), results=tmp_path)


def test_tumour_samples_of_barcodes_and_their_mean(tmp_path):
    path = tmp_path / "x.csv"
    rows = {
        "TCGA-AA-0002-01A-11R-1000-07": -6, "TCGA-AA-0001-06A-11R-1000-07": 9, "TCGA-AA-0001-01A-11R-1000-07": 1,
        "TCGA-AA-0001-01A-12R-1000-07": 2, "TCGA-AA-0001-11A-11R-1000-07": 8,
    }  # fmt: skip
    lines = [f"{barcode}," + ",".join(str(value + gene) for gene in range(6)) for barcode, value in rows.items()]
    path.write_text("sample_id," + ",".join(GENES) + "\n" + "\n".join(lines) + "\n")
    receipt = stage.run(path=path, config=settings("log", patient="tcga"), results=tmp_path)
    assert set(receipt["info"]["dropped_samples"]) == {"TCGA-AA-0001-06A-11R-1000-07", "TCGA-AA-0001-11A-11R-1000-07"}
    assert list(receipt["info"]["replicates"]) == ["TCGA-AA-0001"]
    assert (receipt["counts"]["samples"], receipt["counts"]["patients"]) == (2, 2)
    ids, means, genes = stage.by_patient(tmp_path / stage.OUTPUT)
    assert (ids, genes) == (["TCGA-AA-0001", "TCGA-AA-0002"], GENES)
    np.testing.assert_array_equal(means, [np.arange(6) + 1.5, np.arange(6) - 6.0])
    stage.run(path=path, config=settings("log", patient="tcga", replicates="first"), results=tmp_path)
    np.testing.assert_array_equal(stage.by_patient(tmp_path / stage.OUTPUT)[1][0], np.arange(6) + 2.0)


def test_normal_samples_alone_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sample_id," + ",".join(GENES) + "\nTCGA-AA-0001-11A,1,2,3,4,5,6\n")
    with pytest.raises(HistillError, match="none of its 1 samples is of a wanted type") as caught:
        stage.run(path=path, config=settings(patient="tcga"), results=tmp_path)
    assert "transcriptome.matrix.sample_types" in caught.value.mend


def test_counts_are_read_only_where_there_are_some(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sample_id," + ",".join(GENES) + "\nS1,1,2,-3,4,5,6\nS2,3,2,-3,4,5,6\n")
    stage.run(path=path, config=settings("log"), results=tmp_path)
    with pytest.raises(HistillError, match="keeps no counts: the unit of its table is log"):
        stage.by_patient(tmp_path / stage.OUTPUT, layer="counts")


def test_readers_name_a_file_that_is_not_there(tmp_path):
    with pytest.raises(HistillError, match=r"absent\.h5ad"):
        stage.by_patient(tmp_path / "absent.h5ad")


@pytest.mark.shared_data
def test_z_scores_of_tcga_luad(shared_data, tmp_path):
    receipt = stage.run(path=shared_data / "tcga_luad" / "rna.parquet", config=settings("zscore"), results=tmp_path)
    assert (receipt["counts"]["samples"], receipt["counts"]["genes"]) == (422, 1555)
    assert receipt["info"]["findings"]["genes"]["value"] == "columns"
    assert "46 z-scores are beyond ±50 (gene 'DEFA5' in sample 'TCGA-55-7570' is 7377.59)" in receipt["warnings"][0]
    ids, matrix, genes = stage.by_patient(tmp_path / stage.OUTPUT)
    assert matrix[ids.index("TCGA-55-7570"), genes.index("DEFA5")] == pytest.approx(7377.59, abs=0.01)
    spaces = subspaces(settings())
    assert check_coverage(spaces, genes, min_genes=200)
    assert all(count["found"] >= 5 for sets in spaces.values() for count in coverage(sets, genes).values())
    assert len(set(members(spaces["microenvironment"])) & set(genes)) > 300
    strict = settings("zscore", gene_sets={"min_genes": 10, "small_sets": "error"})
    with pytest.raises(HistillError, match="fewer than 10 genes of 1 of 11 tumor sets"):
        stage.run(path=shared_data / "tcga_luad" / "rna.parquet", config=strict, results=tmp_path)


def test_samples_that_repeat_another_are_told(tmp_path):
    """One patient under two names would be in two folds."""
    path = tmp_path / "m.csv"
    path.write_text("id,TP53,MYC,EGFR\nP1,5,2000,3\nP2,4,1000,9\nP3,5,2000,3\n")
    found = reading.read(path, settings(genes="columns", ids="symbol")["transcriptome"]["matrix"])
    assert [line for line in found.warnings if "same values" in line] == [
        "samples 'P1' and 'P3' have the same values: are they of one patient?"
    ]

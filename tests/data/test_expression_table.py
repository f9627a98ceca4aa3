from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from histill.config import complete
from histill.data.expression import ExpressionTransform
from histill.data.expression_table import ExpressionTable
from histill.errors import HistillError
from histill.transcriptome import stage

GENES = ["A", "B/C", "D"]
X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
COUNTS = np.array([[10, 0, 4], [7, 7, 7]])


def settings(results, clinical=None, **transform):
    return complete(
        {
            "results": str(results),
            "cohort": {"clinical": clinical and str(clinical)},
            "transcriptome": {"transform": transform},
        }
    )


@pytest.fixture
def results(tmp_path):
    """A results folder with two transcriptomes."""
    stage.write(tmp_path / stage.OUTPUT, X, ["s1", "s2"], ["P2", "P1"], GENES, {"unit": "counts"}, counts=COUNTS)
    return tmp_path


def test_one_row_a_patient_on_the_scale_that_is_asked_for(results):
    table = ExpressionTable.read(results, settings(results))
    assert (table.patients, table.genes, table.counts, table.batches) == (["P1", "P2"], GENES, False, None)
    np.testing.assert_array_equal(table.values, [[4, 5, 6], [1, 2, 3]])
    counted = ExpressionTable.read(results, settings(results, normalisation="tmm"))
    assert counted.counts
    np.testing.assert_array_equal(counted.values, [[7, 7, 7], [10, 0, 4]])
    np.testing.assert_array_equal(counted.rows(["P2", "P1"]), [[10, 0, 4], [7, 7, 7]])


def test_normalisation_without_counts_is_refused(tmp_path):
    stage.write(tmp_path / stage.OUTPUT, X, ["s1", "s2"], ["P2", "P1"], GENES, {"unit": "tpm"})
    with pytest.raises(HistillError, match="keeps no counts: the unit of its table is tpm") as error:
        ExpressionTable.read(tmp_path, settings(tmp_path, normalisation="upper_quartile"))
    assert "transcriptome.transform.normalisation" in error.value.mend
    assert ExpressionTable.read(tmp_path, settings(tmp_path)).patients == ["P1", "P2"]


def test_batches_are_a_column_of_the_clinical_sheet(results):
    clinical = results / "clinical.csv"
    clinical.write_text("patient_id,plate\nP9,x\nP2,A32\nP1,NA\n")
    table = ExpressionTable.read(results, settings(results, clinical, batch={"column": "plate"}))
    assert table.batches == {"P1": None, "P2": "A32"}
    assert table.batch(["P2", "P1"]) == ["A32", None]


def test_batches_of_sites_are_those_of_the_cohort(results):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (results / "cohort").mkdir()
    sites = {"patient_id": ["P0", "P1", "P2"], "site": ["a", "b", None]}
    pq.write_table(pa.table(sites), results / "cohort" / "patients.parquet")
    table = ExpressionTable.read(results, settings(results, batch={"column": "site"}))
    assert table.batch(["P2", "P1"]) == [None, "b"]


@pytest.mark.parametrize("given", [True, False])
def test_an_unknown_batch_column_is_named(results, given):
    clinical = results / "clinical.csv"
    clinical.write_text("patient_id,plate\nP1,x\n")
    options = settings(results, clinical if given else None, batch={"column": "plat"})
    with pytest.raises(HistillError, match="has no column 'plat'") as error:
        ExpressionTable.read(results, options)
    assert "transcriptome.transform.batch.column" in error.value.mend


def test_a_table_of_another_scale_is_refused():
    """Values of FPKM on a model of TPM would give a risk as any other."""
    genes = ["MKI67", "TP53", "TOP2A"]
    values = np.random.default_rng(0).normal(5, 2, (20, 3))
    patients = [f"P{row:02d}" for row in range(20)]

    def table(scale):
        return ExpressionTable(patients, values, genes, scale=scale)

    fitted = ExpressionTransform({"tumor": {"cycle": genes}}).fit(values, genes, scale="log2(TPM + 1)")
    again = ExpressionTransform.from_state(load(save(fitted.state())))
    assert again.scale_ == "log2(TPM + 1)"
    expected = table("log2(TPM + 1)").transformed(patients, again)["tumor"]
    from_counts = table("log2(TPM + 1), from counts and gene lengths").transformed(patients, again)["tumor"]
    np.testing.assert_array_equal(from_counts, expected)
    for scale in ("log2(FPKM + 1)", "log2(CPM + 1)", "z-score, as given", "log, as given"):
        with pytest.raises(HistillError, match=r"trained on expression as log2\(TPM \+ 1\), and this table") as caught:
            table(scale).transformed(patients, again)
        assert "transcriptome.matrix.unit" in caught.value.mend


def test_a_checkpoint_that_does_not_say_its_scale_is_refused():
    genes = ["MKI67", "TP53"]
    state = ExpressionTransform({"tumor": {"cycle": genes}}).fit(np.eye(2), genes).state()
    meta = json.loads(bytes(state["meta"]))
    del meta["scale"]
    state["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    with pytest.raises(HistillError, match="does not say which scale") as caught:
        ExpressionTransform.from_state(state)
    assert caught.value.mend == "train the model again"


def test_the_scale_of_a_table_is_that_of_its_values(tmp_path):
    record = {"unit": "counts", "scale": "log2(CPM + 1)"}
    stage.write(tmp_path / stage.OUTPUT, X, ["s1", "s2"], ["P2", "P1"], GENES, record, counts=COUNTS)
    assert ExpressionTable.read(tmp_path, settings(tmp_path)).scale == "log2(CPM + 1)"
    assert ExpressionTable.read(tmp_path, settings(tmp_path, normalisation="tmm")).scale == "counts"

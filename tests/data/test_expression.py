from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from histill import config
from histill.cohort.tasks import Task
from histill.data.bags import BagReader
from histill.data.expression import ExpressionTransform
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort, fit_expression
from histill.transcriptome.gene_sets import members, shipped, subspaces
from histill.transcriptome.read import read_table

SETS = {
    "tumor": {"cycle": ["MKI67", "TOP2A", "ABSENT"], "shared": ["TP53", "MKI67"]},
    "microenvironment": {"t": ["CD3D", "CD8A"], "nothing": ["NOT1", "NOT2"]},
}
GENES = ["CD8A", "TP53", "ACTB", "MKI67", "CD3D", "TOP2A"]


def settings():
    return config.complete({"results": "r", "cohort": {}})


def matrix(rows=40, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (rows, len(GENES)))


def test_columns_follow_the_transform_not_the_table():
    """Shuffled columns of the input give identical tensors (specification §7)."""
    x = matrix()
    transform = ExpressionTransform(SETS).fit(x, GENES)
    order = np.random.default_rng(1).permutation(len(GENES))
    shuffled = transform.transform(x[:, order], [GENES[index] for index in order])
    for subspace, values in transform.transform(x, GENES).items():
        np.testing.assert_array_equal(values, shuffled[subspace])
    refitted = ExpressionTransform(SETS).fit(x[:, order], [GENES[index] for index in order])
    assert refitted.genes_ == transform.genes_


def test_sets_keep_their_members_and_empty_ones_go():
    transform = ExpressionTransform(SETS).fit(matrix(), GENES)
    assert transform.genes_ == {"tumor": ["MKI67", "TOP2A", "TP53"], "microenvironment": ["CD3D", "CD8A"]}
    assert transform.members_["tumor"] == {"cycle": [0, 1], "shared": [0, 2]}
    assert list(transform.members_["microenvironment"]) == ["t"]


def test_a_missing_gene_is_the_training_mean_and_flagged():
    transform = ExpressionTransform(SETS).fit(matrix(), GENES)
    fewer = [gene for gene in GENES if gene != "TP53"]
    values = transform.transform(matrix()[:, [GENES.index(gene) for gene in fewer]], fewer)
    assert not values["tumor"][:, 2].any()
    assert transform.missing(fewer) == {"tumor": ["TP53"], "microenvironment": []}


def test_most_variable_genes():
    x = matrix()
    x[:, GENES.index("TP53")] *= 10
    transform = ExpressionTransform(SETS, top_variance=0.34).fit(x, GENES)
    assert transform.genes_["tumor"] == ["TP53"]


def test_a_single_unknown_value_is_the_training_mean():
    transform = ExpressionTransform(SETS).fit(matrix(), GENES)
    new = matrix(3, seed=1)
    expected = transform.transform(new, GENES)["tumor"]
    new[1, GENES.index("TP53")] = np.nan
    found = transform.transform(new, GENES)["tumor"]
    assert found[1, 2] == 0
    np.testing.assert_array_equal(np.delete(found, 5), np.delete(expected, 5))


def test_outliers_and_genes_left_out_are_said():
    x = matrix()
    x[3, GENES.index("CD3D")] = 7377.0
    x[:, GENES.index("TP53")] = 1.0
    assert ExpressionTransform(SETS, min_variance=0.1).fit(x, GENES).notes_ == [
        "1 of 3 tumor genes are left out for low variance",
        "1 training values of 1 microenvironment genes are outliers and are clipped: more than 5 standard "
        "deviations from the mean, the largest 7377 of CD3D",
    ]
    assert ExpressionTransform(SETS).fit(matrix(), GENES).notes_ == []


# Options of the transform -> a table that it reads.
VARIANTS = {
    "log": {},
    "log, batches": {"batch": {"unseen": "pass", "min_samples": 3}},
    "tmm": {"normalisation": "tmm"},
    "upper quartile, batches": {"normalisation": "upper_quartile", "batch": {"unseen": "error", "min_samples": 3}},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Constructor options; expression [N, G]; genes; batches [N], of which the last 20 patients are test."""
    options = VARIANTS[request.param]
    genes = [*GENES, *(f"OTHER{index}" for index in range(300))]
    rng = np.random.default_rng(3)
    logs = rng.normal(4, 2, len(genes)) + rng.normal(size=(60, len(genes)))
    table = rng.poisson(np.exp(logs)).astype(float) if "normalisation" in options else logs
    return {"top_variance": 0.67, **options}, table, genes, [f"site {row % 3}" for row in range(60)]


def state_of(variant, rows, table=None, genes=None):
    options, original, own, batches = variant
    transform = ExpressionTransform(SETS, **options)
    table = original if table is None else table
    return transform.fit(table[rows], genes or own, batch=[batches[row] for row in rows]).state()


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize("corrupt", ["shuffled", "huge", "zero"])
def test_test_patients_change_nothing_that_is_fitted(variant, corrupt):
    """Bit for bit, also where the table is fitted as the slice of a larger one."""
    _, table, _, _ = variant
    changed = table.copy()
    if corrupt == "shuffled":
        changed[40:] = np.random.default_rng(9).permuted(changed[40:])
    else:
        changed[40:] = {"huge": 1e9, "zero": 0.0}[corrupt]
    assert (changed[40:] != table[40:]).any()
    assert_same_bits(state_of(variant, range(40)), state_of(variant, range(40), changed))


@pytest.mark.parametrize("corrupt", [lambda x: x[::-1], lambda x: x * 0 - 1e9, np.exp])
def test_a_fold_is_fitted_on_its_training_patients_alone(tmp_path, corrupt):
    patients = [f"P{number:02}" for number in range(30)]
    genes = members({**shipped("tumor"), **shipped("microenvironment")})
    table = np.random.default_rng(0).normal(5, 2, (30, len(genes)))
    columns = {
        "patient_id": patients,
        "has_slide": [True] * 30,
        "has_rna": [True] * 30,
        "label:dx": ["a", "b"] * 15,
    }
    assignment = {patient: [number % 3] for number, patient in enumerate(patients)}
    folds = {"n": 3, "repeats": 1, "assignment": assignment, "validation": {"dx": {"0": patients[1:5:3]}}}
    task = Task("dx", "classification", ("dx",))

    def fitted(matrix):
        cohort = Cohort(columns, folds, BagReader(tmp_path, {}), ExpressionTable(patients, matrix, genes))
        training = cohort.select(task, 0, "train", slide=True, rna=True)
        return training, fit_expression(cohort, training, subspaces(settings()), settings()).state()

    training, expected = fitted(table)
    others = [row for row, patient in enumerate(patients) if patient not in training]
    assert len(others) == 12
    changed = table.copy()
    changed[others] = corrupt(changed[others])
    assert_same_bits(fitted(changed)[1], expected)


def test_training_patients_do_change_what_is_fitted(variant):
    """The check above can fail."""
    changed = variant[1].copy()
    changed[39] += 1000
    first, second = state_of(variant, range(40)), state_of(variant, range(40), changed)
    assert any(first[name].tobytes() != second[name].tobytes() for name in first)


def test_a_test_patient_is_transformed_by_itself(variant):
    options, table, genes, batches = variant
    transform = ExpressionTransform(SETS, **options).fit(table[:40], genes, batch=batches[:40])
    together = transform.transform(table[40:], genes, batch=batches[40:])
    for subspace, values in together.items():
        for row in (0, 19):
            own = slice(40 + row, 41 + row)
            alone = transform.transform(table[own], genes, batch=batches[own])[subspace]
            np.testing.assert_array_equal(alone[0], values[row])


def test_order_of_genes_changes_nothing_that_is_fitted(variant):
    _, table, genes, _ = variant
    order = np.random.default_rng(1).permutation(len(genes))
    shuffled = [genes[index] for index in order]
    assert_same_bits(state_of(variant, range(40)), state_of(variant, range(40), table[:, order], shuffled))


def test_state_round_trip(variant):
    options, table, genes, batches = variant
    transform = ExpressionTransform(SETS, clip=3, **options).fit(table[:40], genes, batch=batches[:40])
    again = ExpressionTransform.from_state(load(save(transform.state())))
    for subspace, values in transform.transform(table[40:], genes, batch=batches[40:]).items():
        np.testing.assert_array_equal(
            values, again.transform(table[40:], genes, batch=batches[40:])[subspace], err_msg=subspace
        )
    assert (again.genes_, again.members_) == (transform.genes_, transform.members_)
    assert_same_bits(again.state(), transform.state())


def test_a_gene_missing_from_counts_is_the_training_mean(variant):
    options, table, genes, batches = variant
    transform = ExpressionTransform(SETS, **options).fit(table[:40], genes, batch=batches[:40])
    gone = transform.genes_["tumor"][0]
    kept = [index for index, gene in enumerate(genes) if gene != gone]
    fewer = [genes[index] for index in kept]
    found = transform.transform(table[40:, kept], fewer, batch=batches[40:])
    whole = transform.transform(table[40:], genes, batch=batches[40:])
    assert transform.missing(fewer)["tumor"] == [gone]
    assert not found["tumor"][:, 0].any()
    np.testing.assert_allclose(found["tumor"][:, 1:], whole["tumor"][:, 1:], atol=0.05)


@pytest.mark.shared_data
def test_z_scores_with_outliers_of_a_real_cohort(shared_data):
    """TCGA-STAD as published: z-scores up to 1,354."""
    values, patients, genes = read_table(shared_data / "tcga_stad" / "rna.parquet")
    assert np.abs(values).max() > 1000
    transform = ExpressionTransform({name: shipped(name) for name in SETS}).fit(values, genes)
    for scaled in transform.transform(values, genes).values():
        assert np.isfinite(scaled).all()
        assert np.abs(scaled).max() <= 5
        assert np.quantile(scaled.std(axis=0), 0.05) > 0.8  # no gene is flattened by an outlier
    assert len(transform.notes_) == 2
    assert all("outliers and are clipped" in note for note in transform.notes_)
    assert len(patients) > 300

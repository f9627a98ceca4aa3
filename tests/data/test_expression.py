from __future__ import annotations

import numpy as np

from histill.data.expression import ExpressionTransform

SETS = {
    "tumor": {"cycle": ["MKI67", "TOP2A", "ABSENT"], "shared": ["TP53", "MKI67"]},
    "microenvironment": {"t": ["CD3D", "CD8A"], "nothing": ["NOT1", "NOT2"]},
}
GENES = ["CD8A", "TP53", "ACTB", "MKI67", "CD3D", "TOP2A"]


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


def test_test_patients_change_nothing_that_is_fitted():
    x = matrix(60)
    corrupted = x.copy()
    corrupted[40:] = 1e6
    first, second = (ExpressionTransform(SETS).fit(data[:40], GENES).state() for data in (x, corrupted))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_state_round_trip():
    transform = ExpressionTransform(SETS, clip=3).fit(matrix(), GENES)
    again = ExpressionTransform.from_state(transform.state())
    for subspace, values in transform.transform(matrix(seed=3), GENES).items():
        np.testing.assert_array_equal(values, again.transform(matrix(seed=3), GENES)[subspace])
    assert again.members_ == transform.members_

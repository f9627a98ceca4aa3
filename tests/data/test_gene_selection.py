from __future__ import annotations

import warnings

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.utils.estimator_checks import check_estimator

from histill.data.expression import ExpressionTransform
from histill.data.gene_selection import GeneSelection, read_gene_list
from histill.data.scaling import VarianceFilter
from histill.errors import HistillError

GENES = [f"G{index:03d}" for index in range(120)]
MARKERS = ["G007", "G042"]
SETS = {"genes": {"all": GENES}}


def cohort(rows=90, seed=0):
    """Expression [N, 120] of three classes that two markers tell apart, and the classes."""
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 3
    x = rng.normal(5, 1, (rows, len(GENES)))
    x[:, GENES.index(MARKERS[0])] += 8 * (kind == 1)
    x[:, GENES.index(MARKERS[1])] += 8 * (kind == 2)
    return x, [("a", "b", "c")[index] for index in kind]


def names(selection):
    return [gene for gene, kept in zip(GENES, selection.support_, strict=True) if kept]


def test_planted_markers_are_found():
    x, y = cohort()
    selection = GeneSelection(minimum=1).fit(x, y)
    assert set(MARKERS) <= set(names(selection))
    assert len(names(selection)) < 60
    note = selection.notes_[0]
    assert note.startswith(f"elimination keeps {len(names(selection))} of 120 genes: accuracy ")
    assert note.endswith(" in 5 inner folds of 90 patients")
    np.testing.assert_array_equal(selection.transform(x), x[:, selection.support_])


def test_without_markers_the_classes_are_guessed():
    """The check above can fail."""
    x, y = cohort()
    shuffled = np.random.default_rng(1).permutation(y)
    accuracies = [
        float(GeneSelection(minimum=1).fit(x, labels).notes_[0].split("accuracy ")[1].split()[0])
        for labels in (y, shuffled)
    ]
    assert accuracies[0] > 0.9
    assert accuracies[1] < 0.6


def test_the_best_ranked_fill_up():
    x, y = cohort()
    few = GeneSelection(minimum=1).fit(x, y)
    count = len(names(few))
    filled = GeneSelection(minimum=count + 9).fit(x, y)
    assert len(names(filled)) == count + 9
    assert set(names(few)) < set(names(filled))
    added = filled.support_ & ~few.support_
    left = ~filled.support_
    assert filled.ranking_[added].max() <= filled.ranking_[left].min()
    assert filled.notes_[1] == f"9 of the best ranked genes fill up to {count + 9}"
    assert GeneSelection(minimum=5000).fit(x, y).support_.all()


def test_listed_genes_are_selected_whatever_the_classes():
    x, y = cohort()
    with_list = GeneSelection(list=["G000", "G119", "ABSENT"], minimum=1).fit(x, y, genes=GENES)
    alone = GeneSelection(minimum=1).fit(x, y)
    assert set(names(with_list)) == set(names(alone)) | {"G000", "G119"}
    assert with_list.notes_[0] == "2 of 3 listed genes are present and selected"


def test_without_classes_the_list_decides():
    x, _ = cohort()
    assert names(GeneSelection(list=["G005", "ABSENT"]).fit(x, genes=GENES)) == ["G005"]
    assert GeneSelection().fit(x).support_.all()
    with pytest.raises(HistillError, match="none of the 1 listed genes is among the 120 genes, such as \\['ABSENT'\\]"):
        GeneSelection(list=["ABSENT"]).fit(x, genes=GENES)
    with pytest.raises(ValueError, match="symbols of the columns"):
        GeneSelection(list=["G005"]).fit(x)


def test_patients_without_a_class_change_nothing():
    x, y = cohort()
    unknown = [None if row % 4 == 0 else name for row, name in enumerate(y)]
    known = [row for row, name in enumerate(unknown) if name]
    first = GeneSelection(minimum=20).fit(x, unknown)
    second = GeneSelection(minimum=20).fit(x[known], [y[row] for row in known])
    np.testing.assert_array_equal(first.ranking_, second.ranking_)
    np.testing.assert_array_equal(first.support_, second.support_)


def test_rare_classes_take_fewer_inner_folds_and_lone_ones_are_refused():
    x, y = cohort(60)
    rare = ["rare" if row in (3, 30, 45) else name for row, name in enumerate(y)]
    assert "in 3 inner folds of 60 patients" in GeneSelection().fit(x, rare).notes_[0]
    with pytest.raises(HistillError, match="class 'rare' has one training patient"):
        GeneSelection().fit(x, ["rare" if row == 3 else name for row, name in enumerate(y)])
    with pytest.raises(HistillError, match="the training patients are all of class 'a'"):
        GeneSelection().fit(x, ["a"] * 60)
    with pytest.raises(HistillError, match="the training patients have no known class"):
        GeneSelection().fit(x, [None] * 60)


def test_unknown_constant_and_wild_values():
    x, y = cohort()
    x[:, 0], x[:, 1], x[5, 2], x[:7, GENES.index("G042")] = 3.0, np.nan, 1e6, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        selection = GeneSelection(minimum=30).fit(x, y)
    assert set(MARKERS) <= set(names(selection))
    assert len(names(selection)) >= 30


def test_state_round_trip():
    x, y = cohort()
    selection = GeneSelection(list=MARKERS, minimum=7, step=0.1, folds=3, seed=2).fit(x, y, genes=GENES)
    again = GeneSelection.from_state(load(save(selection.state())))
    assert (again.minimum, again.step, again.folds, again.seed) == (7, 0.1, 3, 2)
    np.testing.assert_array_equal(again.transform(x), selection.transform(x))


def test_the_estimator_is_scikit_learns():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        differs = {"check_fit2d_1sample": "a single patient is refused by an error of histill's"}
        check_estimator(GeneSelection(), expected_failed_checks=differs)


# Within the transform of expression.


def fitted(x, y, rows, **selection):
    transform = ExpressionTransform(SETS, top_variance=0.9, selection={"minimum": 12, **selection})
    return transform.fit(x[rows], GENES, classes=None if y is None else [y[row] for row in rows])


def same_bits(first, second):
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_transform_with_selection():
    x, y = cohort()
    transform = fitted(x, y, range(60), list=["G001", "ABSENT"])
    (kept,) = transform.genes_.values()
    assert set(MARKERS) <= set(kept)
    assert kept == sorted(kept)
    assert len(kept) >= 12
    assert transform.members_["genes"]["all"] == list(range(len(kept)))
    assert transform.notes_[0] == "12 of 120 genes genes are left out for low variance"
    assert any(note.startswith("selection of genes genes: elimination keeps ") for note in transform.notes_)
    scaled = transform.transform(x[60:], GENES)["genes"]
    assert scaled.shape == (30, len(kept))
    fewer = [gene for gene in GENES if gene != MARKERS[0]]
    missing = transform.transform(x[60:, [GENES.index(gene) for gene in fewer]], fewer)["genes"]
    assert not missing[:, kept.index(MARKERS[0])].any()
    np.testing.assert_array_equal(
        np.delete(missing, kept.index(MARKERS[0]), 1), np.delete(scaled, kept.index("G007"), 1)
    )


def test_a_stored_transform_selects_alike():
    x, y = cohort()
    transform = fitted(x, y, range(60), list=MARKERS)
    again = ExpressionTransform.from_state(load(save(transform.state())))
    np.testing.assert_array_equal(again.transform(x, GENES)["genes"], transform.transform(x, GENES)["genes"])
    assert again.selection == {"minimum": 12, "list": MARKERS}
    assert same_bits(again.state(), transform.state())


def test_states_from_before_selection_load():
    """They do not say `selection`."""
    x, _ = cohort()
    transform = ExpressionTransform(SETS).fit(x, GENES)
    state = transform.state()
    text = bytes(state["meta"]).decode()
    assert '"selection": null, ' in text
    state["meta"] = np.frombuffer(text.replace('"selection": null, ', "").encode(), dtype=np.uint8)
    again = ExpressionTransform.from_state(state)
    np.testing.assert_array_equal(again.transform(x, GENES)["genes"], transform.transform(x, GENES)["genes"])


def test_order_of_genes_changes_nothing_that_is_selected():
    x, y = cohort()
    order = np.random.default_rng(1).permutation(len(GENES))
    shuffled = ExpressionTransform(SETS, selection={"minimum": 12}).fit(
        x[:, order], [GENES[index] for index in order], classes=y
    )
    assert same_bits(
        shuffled.state(), ExpressionTransform(SETS, selection={"minimum": 12}).fit(x, GENES, classes=y).state()
    )


def test_several_subspaces_are_refused():
    with pytest.raises(ValueError, match="one subspace; there are tumor, other"):
        ExpressionTransform({"tumor": {"a": GENES[:3]}, "other": {"b": GENES[3:]}}, selection={})


@pytest.mark.shared_data
@pytest.mark.parametrize("fold", [0, 3])
def test_no_validation_patient_has_a_part_in_the_selection(shared_data, fold):
    """TCGA gliomas, folds as published: bit for bit, whatever the validation patients' genes and classes are."""
    import pandas as pd

    table = pd.read_csv(shared_data / "rna" / "porpoise_tcga_gbmlgg.csv.zip").drop_duplicates("case_id")
    lists = pd.read_csv(shared_data / "rna" / "splits" / f"porpoise_tcga_gbmlgg_splits_{fold}.csv")
    values = table.filter(like="_rnaseq")
    genes = [name.removesuffix("_rnaseq") for name in values]
    x = values.to_numpy(np.float64)
    classes = table["oncotree_code"].map({"ODG": "oligodendroglioma", "ASTR": "astrocytoma", "AASTR": "astrocytoma"})
    training = table["case_id"].isin(lists["train"]).to_numpy()
    assert training.sum() == lists["train"].notna().sum() == 455

    def state(x, classes, rows):
        y = [None if pd.isna(name) else name for name in classes[rows]]
        transform = ExpressionTransform({"genes": {"all": genes}}, selection={"minimum": 100, "step": 0.2})
        return transform.fit(x[rows], genes, classes=y).state()

    expected = state(x, classes.to_numpy(), training)
    corrupt, turned = x.copy(), classes.to_numpy().copy()
    corrupt[~training] = 1e6 - corrupt[~training, ::-1]
    turned[~training] = "astrocytoma"
    assert same_bits(state(corrupt, turned, training), expected)
    assert not same_bits(state(x, classes.to_numpy(), np.ones(len(x), dtype=bool)), expected)


@pytest.mark.shared_data
def test_genes_of_the_oestrogen_receptor(shared_data):
    """60 breast cancers with read counts of 20,124 genes: ER status finds its own gene and its known partner."""
    import pandas as pd

    counts = pd.read_csv(shared_data / "rna" / "tcga_brca_counts_60.tsv.gz", sep="\t", index_col=0)
    status = pd.read_csv(shared_data / "rna" / "tcga_brca_er_her2_labels.tsv", sep="\t", index_col=0)["ER"]
    status = status[~status.index.duplicated()].loc[[sample[:12] for sample in counts.columns]]
    x = np.log2(counts.to_numpy(np.float64).T / counts.sum().to_numpy()[:, None] * 1e6 + 1)
    varying = VarianceFilter(top=0.1).fit(x)
    genes = varying.get_feature_names_out(counts.index)
    selection = GeneSelection(minimum=60).fit(varying.transform(x), status.tolist())
    best = np.array(genes)[selection.support_]
    assert len(best) < 1000
    assert {"ESR1", "GATA3"} <= set(best)


# Lists of genes.


def written(tmp_path, text, name="genes.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("genes.txt", "# a comment\nTP53\n\nCDH1\r\nTP53\nMLL\n"),
        ("census.csv", 'Gene Symbol,Name,Tier\nTP53,"tumor protein, p53",1\nCDH1,cadherin 1,1\nMLL,,1\n'),
        ("census.tsv", "Name\tGENE_SYMBOL\nx\tTP53\ny\tCDH1\nz\tMLL\n"),
        ("one.csv", "Gene Symbol\nTP53\nCDH1\nMLL\n"),
    ],
)
def test_gene_lists_have_current_symbols(tmp_path, name, text):
    assert read_gene_list(written(tmp_path, text, name)) == ["TP53", "CDH1", "KMT2A"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.txt", "TP53\nCDH1 ESR1\n", "g.txt, line 2: 'CDH1 ESR1' is no gene symbol"),
        ("g.txt", "# nothing\n", "g.txt holds no gene"),
        ("g.csv", "symbol,tier\nTP53,1\n", "g.csv: has no column 'Gene Symbol'; its columns are symbol, tier"),
        ("g.csv", "Gene Symbol,tier\nTP53,1\n,2\n", "g.csv, line 3: '' is no gene symbol"),
        ("g.csv", "Gene Symbol,tier\nTP53,1,9\n", "g.csv, line 2: 3 cells, the header has 2"),
    ],
)
def test_gene_lists_that_cannot_be_read(tmp_path, name, text, message):
    with pytest.raises(HistillError) as caught:
        read_gene_list(written(tmp_path, text, name))
    assert message in str(caught.value)
    assert caught.value.mend


def test_a_gene_list_that_is_not_there(tmp_path):
    with pytest.raises(HistillError, match=r"absent\.txt cannot be read"):
        read_gene_list(tmp_path / "absent.txt")

"""Retrieval of the other modality: known ranks, chance, ties and leaks."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.errors import HistillError
from histill.evaluation.alignment import retrieval
from histill.evaluation.predictions import Model
from histill.evaluation.stage import run
from histill.methods.extras import EMBEDDINGS
from tests.evaluation.fake import edit, write_cohort
from tests.evaluation.fake_pretraining import write_embeddings

BOTH = Model("linear-both", "train")
METHODS = {"run": ["linear-slide", "linear-both"]}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    results = tmp_path_factory.mktemp("alignment")
    return results, write_cohort(results, seeds=(0, 1), methods=METHODS)


@pytest.fixture
def copied(cohort, tmp_path):
    source, config = cohort
    shutil.copytree(source, tmp_path / "results")
    return tmp_path / "results", config


def _scored(results, config, **options):
    write_embeddings(results, config, "survival", BOTH, **options)
    (found,) = run(task="survival", config=config, results=results)["alignment"]["models"]
    return found


def test_ranks_by_hand():
    gallery = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    query = np.array([[2.0, 1.0], [5.0, 0.1], [0.0, 0.0]])
    nearer, tied = retrieval(query, gallery)
    assert nearer.tolist() == [0, 1, 0]
    assert tied.tolist() == [0, 0, 2]


def test_perfect_pairs_are_all_found(copied):
    found = _scored(*copied, noise=0.0)
    assert found["model"] == "linear-both"
    assert found["n"] == 49
    for direction in found["directions"].values():
        for key in ("recall1", "recall5", "recall10", "mean_rank"):
            assert (direction[key]["value"], direction[key]["low"], direction[key]["high"]) == (1.0, 1.0, 1.0)


def test_unrelated_embeddings_are_at_chance(copied):
    found = _scored(*copied, noise=np.inf)
    sizes = np.array([fold["n"] for fold in found["folds"]])
    for direction in found["directions"].values():
        for k in (1, 5, 10):
            entry = direction[f"recall{k}"]
            assert entry["chance"] == pytest.approx(np.mean(k / sizes))
            assert entry["low"] <= entry["chance"] <= entry["high"]
        assert direction["mean_rank"]["chance"] == pytest.approx(np.mean((sizes + 1) / 2))
        assert direction["mean_rank"]["low"] <= direction["mean_rank"]["chance"] <= direction["mean_rank"]["high"]


def test_collapsed_embeddings_give_exactly_chance(copied):
    """All alike: a rank that counts only what is nearer would call every patient found."""
    results, config = copied
    write_embeddings(results, config, "survival", BOTH)
    for fold in range(3):
        for seed in range(2):
            path = BOTH.path(results, "survival", fold, seed).with_name(EMBEDDINGS)
            table = pq.read_table(path).to_pydict()
            table["rna"] = [[0.3, 0.1, 0.7] + [0.2] * 13] * len(table["rna"])
            pq.write_table(pa.table(table), path)
    (found,) = run(task="survival", config=config, results=results)["alignment"]["models"]
    for key, entry in found["directions"]["slide_to_rna"].items():
        assert entry["value"] == pytest.approx(entry["chance"], abs=1e-12), key


def test_seeds_folds_and_direction(copied):
    results, config = copied
    found = _scored(results, config, noise=0.8)
    forth, back = (found["directions"][name]["recall1"] for name in ("slide_to_rna", "rna_to_slide"))
    assert forth["value"] == pytest.approx(np.mean([seed["value"] for seed in forth["seeds"]]))
    assert forth["value"] == pytest.approx(np.mean([fold["value"] for fold in forth["folds"]]))
    assert len(forth["seeds"]) == 2
    assert [fold["value"] for fold in forth["folds"]] != [fold["value"] for fold in back["folds"]]
    for entry in (forth, back):
        assert entry["chance"] < entry["low"] < entry["value"] < entry["high"] <= 1


def test_leaks_and_broken_values_are_named(copied):
    results, config = copied
    write_embeddings(results, config, "survival", BOTH)
    path = BOTH.path(results, "survival", 1, 0).with_name(EMBEDDINGS)
    edit(path, "slide", 2, [float("nan")] * 16)
    with pytest.raises(HistillError, match="the slide embedding is not finite"):
        run(task="survival", config=config, results=results)
    edit(path, "split", 1, "train")
    with pytest.raises(HistillError, match=r"is in its train split but belongs to fold 1; the file is of fold 1"):
        run(task="survival", config=config, results=results)
    edit(path, "patient_id", 0, "P003")
    with pytest.raises(HistillError, match=r"'P003' is in its test split but belongs to fold 0; the file is of fold 1"):
        run(task="survival", config=config, results=results)
    path.unlink()
    with pytest.raises(HistillError, match=r"fold1-seed0/train/embeddings\.parquet does not exist"):
        run(task="survival", config=config, results=results)


def test_a_fold_without_test_patients_needs_no_file(copied):
    results, config = copied
    write_embeddings(results, config, "survival", BOTH)
    for seed in range(2):
        path = BOTH.path(results, "survival", 1, seed)
        table = pq.read_table(path)
        pq.write_table(table.filter(pa.array([split != "test" for split in table["split"].to_pylist()])), path)
        path.with_name(EMBEDDINGS).unlink()
    (found,) = run(task="survival", config=config, results=results)["alignment"]["models"]
    assert [fold["fold"] for fold in found["folds"]] == [0, 2]
    assert len(found["directions"]["slide_to_rna"]["recall1"]["folds"]) == 2

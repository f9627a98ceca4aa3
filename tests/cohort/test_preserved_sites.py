"""Folds that keep sites together: always whole, as even as can be, and the same again."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from histill.cohort import preserved_sites as preserved
from histill.errors import HistillError

SITES = st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=60)


def cohort(sites: str | list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    site = {f"p{index:03}": name for index, name in enumerate(sites)}
    return site, {patient: ["dx: x" if index % 3 else "dx: y"] for index, patient in enumerate(site)}


@settings(deadline=None, max_examples=40)
@given(sites=SITES, n=st.integers(2, 4), seed=st.integers(0, 3))
def test_every_site_is_in_one_fold_and_every_fold_has_one(sites, n, seed):
    site, outcomes = cohort(sites)
    assume(len(set(sites)) >= n)
    for partition in preserved.partitions(site, outcomes, n=n, seed=seed, repeats=2):
        assert partition.fold.keys() == set(sites)
        assert set(partition.fold.values()) == set(range(n))
    turned = dict(reversed(site.items()))
    again = preserved.partitions(turned, outcomes, n=n, seed=seed, repeats=2)
    assert again == preserved.partitions(site, outcomes, n=n, seed=seed, repeats=2)


def best_of_all(counts: np.ndarray, n: int) -> float:
    folds = (np.array(fold) for fold in product(range(n), repeat=len(counts)) if len(set(fold)) == n)
    return min(preserved.imbalance(counts, fold, n) for fold in folds)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=7), n=st.integers(2, 3))
def test_few_sites_are_divided_as_well_as_can_be(sizes, n):
    counts = np.array([(a + b, a, b) for a, b in sizes], dtype=np.float64)
    assume((counts.sum(0) > 0).all() and (counts[:, 0] > 0).all())
    best = best_of_all(counts, n)
    fold, optimal = preserved.exact(counts, n)
    assert optimal
    assert preserved.imbalance(counts, fold, n) == pytest.approx(best, abs=1e-9)
    found = preserved.search(counts, n, np.random.default_rng(0), set())
    assert set(found) == set(range(n))
    assert preserved.imbalance(counts, found, n) >= best - 1e-9


def test_the_search_comes_close_to_the_best_and_scales():
    generator = np.random.default_rng(3)
    kinds = generator.integers(1, 15, (12, 3)).astype(np.float64)
    counts = np.column_stack([kinds.sum(1), kinds])
    fold, optimal = preserved.exact(counts, 4)
    best = preserved.imbalance(counts, fold, 4)
    assert optimal
    found = preserved.imbalance(counts, preserved.search(counts, 4, generator, set()), 4)
    assert best - 1e-9 <= found < best + 0.02
    kinds = generator.integers(0, 30, (400, 6)).astype(np.float64)
    counts = np.column_stack([kinds.sum(1), kinds])
    many = preserved.search(counts, 10, generator, set())
    assert preserved.imbalance(counts, many, 10) < 0.02 < preserved.imbalance(counts, np.arange(400) % 10, 10)


def test_repeats_differ_where_there_are_enough_sites():
    site, outcomes = cohort([name for index, name in enumerate("abcdefghij") for _ in range(3 + index)])
    found = preserved.partitions(site, outcomes, n=3, seed=1, repeats=4)
    together = {frozenset(frozenset(s for s, f in p.fold.items() if f == fold) for fold in range(3)) for p in found}
    assert len(together) == 4
    assert found[0].optimal
    assert all(partition.imbalance >= found[0].imbalance - 1e-9 for partition in found)


def test_fewer_sites_than_folds_are_refused():
    with pytest.raises(HistillError, match=r"3 folds need as many sites; there are 2 .a, b.") as caught:
        preserved.partitions(*cohort("aabbab"), n=3, seed=0)
    assert "lower folds.n" in caught.value.mend


def test_the_balance_and_too_large_sites_are_told():
    site, outcomes = cohort("a" * 20 + "b" * 6 + "c" * 4)
    (partition,) = preserved.partitions(site, outcomes, n=2, seed=0)
    folds = preserved.describe(partition, site, outcomes, first=4)
    assert sorted((fold["sites"], fold["patients"]) for fold in folds) == [(["a"], 20), (["b", "c"], 10)]
    assert {fold["fold"] for fold in folds} == {4, 5}
    assert sum(fold["outcomes"]["dx: y"] for fold in folds) == 10
    said = preserved.warnings(folds, site, n=2)
    assert said[0].startswith("folds that preserve 3 sites: 10 to 20 patients (even: 15.0); least even: dx: y, ")
    assert said[1] == "site 'a' has 20 patients, more than an even fold (15.0); its fold is larger than the others"

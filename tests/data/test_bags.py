from __future__ import annotations

import numpy as np
import pytest

from histill.data import bags as module
from histill.data.bags import BagReader
from histill.errors import HistillError
from histill.features.store import Group, write_store


@pytest.fixture
def cohort(tmp_path):
    """Reader of three patients, and their bags: two slides, one slide, one slide without a readable tile."""
    generator = np.random.default_rng(0)
    slides = {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"], "none": []}
    expected = {}
    for patient, names in slides.items():
        for level, rows in (("10x", 600), ("20x", 2400)):
            parts = []
            for name in names:
                x = generator.normal(size=(rows + 3 * len(name), 4)).astype(np.float16)
                valid = (generator.random(len(x)) > 0.2) & (patient != "c")
                expected.setdefault((name, "groups"), {})[level] = Group(x, np.zeros((len(x), 2)), {"valid": valid})
                parts.append(x[valid])
            expected[patient, level] = np.concatenate(parts) if parts else None
        for name in names:
            write_store(tmp_path / f"{name}.zarr", expected[name, "groups"], {})
    return BagReader(tmp_path, slides), expected


def test_rows_are_those_of_the_whole_bag(cohort):
    reader, expected = cohort
    for patient in ("a", "b"):
        for level in ("10x", "20x"):
            bag = expected[patient, level]
            assert reader.count(patient, level) == len(bag)
            for rows in ([], [len(bag) - 1, 0], np.random.default_rng(0).permutation(len(bag))):
                rows = np.array(rows, dtype=int)
                np.testing.assert_array_equal(reader.rows(patient, level, rows), bag[rows])
            assert not reader._cache.kept, "single rows must not pull in the bag"
            np.testing.assert_array_equal(reader.read(patient)[level], bag)
            np.testing.assert_array_equal(reader.rows(patient, level, np.array([3, 1])), bag[[3, 1]])
            reader._cache = module._Cache()
    assert reader.count("c", "10x") == 0
    assert reader.read("c")["10x"].shape == (0, 4)


def test_a_sample_is_the_same_whether_or_not_the_bags_are_in_memory(cohort):
    reader, expected = cohort
    sampled = reader.sample(["a", "b", "c"], "20x", rows=50, seed=1)
    assert sampled.shape == (100, 4)
    assert sampled.dtype == np.float32
    generator = np.random.default_rng(1)
    for patient, part in zip("ab", np.split(sampled, 2), strict=True):
        bag = expected[patient, "20x"]
        np.testing.assert_array_equal(part, bag[generator.permutation(len(bag))[:50]])
    for patient in "ab":
        reader.read(patient)
    np.testing.assert_array_equal(reader.sample(["a", "b", "c"], "20x", rows=50, seed=1), sampled)
    assert reader.sample(["b"], "10x", rows=10**6, seed=1).shape == expected["b", "10x"].shape


def test_a_sample_of_many_bags_has_few_rows_of_each(cohort, monkeypatch):
    reader, _ = cohort
    monkeypatch.setattr(module, "SAMPLE_ROWS", 30)
    assert reader.sample(["a", "b"], "20x", rows=50, seed=1).shape == (30, 4)


def test_slides_by_themselves_share_the_memory(cohort):
    reader, expected = cohort
    single = reader.per_slide()
    assert single.slides == {name: [name] for name in ("a1", "a2", "b1", "c1")}
    both = np.concatenate([single.read_level(name, "20x") for name in ("a1", "a2")])
    np.testing.assert_array_equal(both, expected["a", "20x"])
    assert set(reader._cache.kept) == {("a1", "20x"), ("a2", "20x")}


def test_the_cache_keeps_to_its_limit(cohort, monkeypatch):
    reader, expected = cohort
    monkeypatch.setattr(module, "CACHE_BYTES", expected["a", "20x"].nbytes)
    for patient in ("a", "b", "a"):
        reader.read(patient)
        assert reader._cache.bytes == sum(bag.nbytes for bag in reader._cache.kept.values())
    assert list(reader._cache.kept) == [("a1", "a2", "20x")]


def test_a_slide_that_lacks_a_magnification_is_named(cohort, tmp_path):
    reader, _ = cohort
    write_store(tmp_path / "a2.zarr", {"10x": Group(np.zeros((5, 4), np.float16), np.zeros((5, 2)))}, {})
    for read in (reader.read_level, reader.count):
        with pytest.raises(HistillError, match=r"a2\.zarr has no group '20x'"):
            read("a", "20x")

from __future__ import annotations

import numpy as np
import pytest

from histill.data import bags as module
from histill.data.bags import BagReader
from histill.features.store import Group, counts, write_store


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


@pytest.fixture
def mixed(tmp_path):
    """Function: a reader of the same slides in an order of patients; one store has 20x alone, one 10x alone."""
    generator = np.random.default_rng(3)
    corners = 448 * np.stack(np.divmod(np.arange(6), 3), axis=1)
    groups = {
        "10x": Group(generator.normal(size=(6, 4)).astype(np.float16), corners),
        "20x": Group(generator.normal(size=(6, 4)).astype(np.float16), corners, {"parent": np.arange(6)[::-1]}),
    }
    for slide, levels in {
        "both": ("10x", "20x"),
        "again": ("10x", "20x"),
        "fine": ("20x",),
        "coarse": ("10x",),
    }.items():
        write_store(tmp_path / f"{slide}.zarr", {level: groups[level] for level in levels}, {})
    slides = {"a": ["fine"], "b": ["both"], "c": ["coarse"], "d": ["fine", "both", "coarse", "again"]}
    return (lambda order: BagReader(tmp_path, {patient: slides[patient] for patient in order})), groups


@pytest.mark.parametrize("order", ["abcd", "badc", "cdab"])
def test_magnifications_are_those_of_all_stores_in_whatever_order(mixed, order):
    read, groups = mixed
    reader = read(order)
    assert reader.features == {"10x": 4, "20x": 4}
    assert {patient: [reader.count(patient, level) for level in reader.levels] for patient in "abcd"} == {
        "a": [0, 6],
        "b": [6, 6],
        "c": [6, 0],
        "d": [18, 18],
    }
    x = groups["20x"].x
    np.testing.assert_array_equal(reader.rows("d", "20x", np.array([17, 0, 11, 5])), x[[5, 0, 5, 5]])
    np.testing.assert_array_equal(reader.rows("c", "20x", np.array([], int)), np.zeros((0, 4)))
    np.testing.assert_array_equal(reader.read("d")["20x"], np.concatenate([x, x, x]))
    assert {level: rows.shape for level, rows in reader.read("a").items()} == {"10x": (0, 4), "20x": (6, 4)}
    assert reader.read("d")["20x"].dtype == np.float16
    assert np.isnan(reader.mean("a")[:4]).all()
    assert np.isfinite(reader.mean("a")[4:]).all()
    np.testing.assert_array_equal(reader.sample(["a", "b", "c"], "20x", rows=9, seed=0), np.concatenate([x, x]))


def test_geometry_of_slides_that_lack_a_magnification(mixed):
    reader = mixed[0]("abcd")
    whole = reader.geometry("d")
    # Slides 0 and 2 lack a magnification; of slides 1 and 3 parents are counted among the 10x tiles of all.
    assert whole.parents.tolist() == [*[-1] * 6, *range(5, -1, -1), *range(17, 11, -1)]
    assert whole.cells["10x"][:, 0].tolist() == [1] * 6 + [2] * 6 + [3] * 6
    assert whole.cells["20x"][:, 0].tolist() == [0] * 6 + [1] * 6 + [3] * 6
    assert whole.cells["10x"].dtype == whole.parents.dtype == np.int32
    alone = reader.per_slide()
    assert alone.geometry("fine").parents.tolist() == [-1] * 6
    assert alone.geometry("coarse").parents.tolist() == []
    assert alone.geometry("fine").cells["10x"].shape == (0, 3)


def test_a_model_reads_its_own_magnifications(mixed):
    reader = mixed[0]("abcd")
    fine = reader.at({"20x": 4})
    assert list(fine.read("d")) == ["20x"]
    assert fine.geometry("d").parents is None
    assert reader.geometry("d").parents is not None
    assert [fine.has_tiles(patient) for patient in "abcd"] == [True, True, False, True]
    assert not fine.per_slide().has_tiles("coarse")
    # A model of both, and stores that all lack one.
    both = BagReader(reader.folder, {"a": ["fine"]}).at({"20x": 4, "10x": 4})
    assert {level: rows.shape for level, rows in both.read("a").items()} == {"10x": (0, 4), "20x": (6, 4)}


def test_records_of_the_stores_are_read_once_and_when_they_are_needed(cohort, monkeypatch):
    reader, _ = cohort
    read = []
    monkeypatch.setattr(module, "counts", lambda path: read.append(path.stem) or counts(path))
    fresh = BagReader(reader.folder, reader.slides)
    assert read == []
    assert fresh.levels == fresh.per_slide().levels == fresh.at({"10x": 4, "20x": 4}).levels
    assert fresh.at({"20x": 4}).count("a", "20x") == fresh.count("a", "20x")
    assert sorted(read) == ["a1", "a2", "b1", "c1"]

"""Batches: which tiles, in which order, padded how."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from histill.data import module
from histill.data.bags import BagReader, Instances
from histill.data.module import BagDataModule, BagDataset, EpochBatches, collate
from histill.data.scaling import WinsorizedScaler
from histill.data.subset import draw, random_stream
from histill.errors import HistillError
from histill.features.store import Group, write_store

COARSE = {"a1": 50, "a2": 30, "b1": 20, "c1": 0}
SLIDES = {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"]}
DIM = 3


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Patients of two slides, one slide and an empty slide; every tile's features say which one it is."""
    folder = tmp_path_factory.mktemp("stores")
    for number, (slide, count) in enumerate(COARSE.items()):
        column, row = np.divmod(np.arange(count), 7)
        origins = 448 * np.column_stack([column, row])
        fine = (origins[:, None] + 224 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])).reshape(-1, 2)
        parent = np.repeat(np.arange(count, dtype=np.int32), 4)
        x = {level: np.full((len(own), DIM), number, np.float16) for level, own in (("10x", origins), ("20x", fine))}
        for level in x:
            x[level][:, 1] = np.arange(len(x[level]))
        groups = {"10x": Group(x["10x"], origins), "20x": Group(x["20x"], fine, {"parent": parent})}
        for group in groups.values():
            group.obs["valid"] = np.ones(len(group.x), bool)
        write_store(folder / f"{slide}.zarr", groups, {})
    return BagReader(folder, SLIDES)


class Same:
    """In the place of a scaler: features as they are."""

    def transform(self, x):
        return np.asarray(x, dtype=np.float32)


def dataset(reader, patients=("a", "b", "c"), slides="bag", **options):
    instances = Instances.of(reader, list(patients), slides)
    targets = {"label": torch.arange(len(patients))[instances.patient]}
    return BagDataset(instances, {"10x": Same(), "20x": Same()}, targets, **options)


def test_without_a_limit_a_bag_is_whole(reader):
    item = dataset(reader)[0]
    for level in reader.levels:
        np.testing.assert_array_equal(item["tokens"][level].numpy(), reader.read_level("a", level))
        np.testing.assert_array_equal(item["cells"][level].numpy(), reader.geometry("a").cells[level])
    np.testing.assert_array_equal(item["parents"].numpy(), np.repeat(np.arange(80), 4))


def test_a_subset_holds_10x_tiles_and_children_of_the_first_ones(reader):
    item = dataset(reader, max_tiles=24)[0]
    assert {level: x.shape for level, x in item["tokens"].items()} == {"10x": (24, DIM), "20x": (24, DIM)}
    parents = item["parents"].numpy()
    assert (parents >= 0).all()
    np.testing.assert_array_equal(np.unique(parents, return_counts=True)[1], np.full(6, 4))
    # Slide and tile of a child's parent, by their features.
    above, below = item["tokens"]["10x"].numpy()[parents], item["tokens"]["20x"].numpy()
    np.testing.assert_array_equal(above[:, 0], below[:, 0])
    np.testing.assert_array_equal(above[:, 1], below[:, 1] // 4)
    np.testing.assert_array_equal(
        item["cells"]["10x"].numpy()[parents][:, 1:], item["cells"]["20x"].numpy()[:, 1:] // 2
    )


def test_a_subset_follows_from_seed_epoch_and_patient_alone(reader):
    first, second = dataset(reader, max_tiles=9, seed=3), dataset(reader, patients=("b", "a"), max_tiles=9, seed=3)
    _ = second[0]
    chosen = first[0]["tokens"]["20x"]
    assert torch.equal(chosen, second[1]["tokens"]["20x"])
    assert torch.equal(chosen, first[0]["tokens"]["20x"])
    second.epoch = 1
    assert not torch.equal(chosen, second[1]["tokens"]["20x"])
    assert not torch.equal(chosen, dataset(reader, max_tiles=9, seed=4)[0]["tokens"]["20x"])


def test_every_tile_has_its_turn():
    counts, parents = {"10x": 10, "20x": 43}, np.append(np.repeat(np.arange(10), 4), [-1, -1, -1])
    drawn = [draw(counts, parents, 8, random_stream(0, epoch, "p")) for epoch in range(400)]
    share = np.bincount(np.concatenate([rows["20x"] for rows in drawn]), minlength=43) / 400
    np.testing.assert_allclose(share, 8 / 43, atol=0.1)
    assert all(len(rows["20x"]) == len(rows["10x"]) == 8 for rows in drawn)


def test_without_parents_each_magnification_is_drawn_by_itself():
    rows = draw({"10x": 30, "20x": 100}, np.full(100, -1), 12, random_stream(0, 0, "p"))
    assert {level: len(np.unique(own)) for level, own in rows.items()} == {"10x": 12, "20x": 12}
    only = draw({"20x": 100}, None, 200, random_stream(0, 0, "p"))
    np.testing.assert_array_equal(only["20x"], np.arange(100))


def test_no_more_than_the_wanted_rows_are_read(reader):
    fresh = BagReader(reader.folder, SLIDES)
    _ = dataset(fresh, max_tiles=9)[0]
    assert [key[-1] for key in fresh._cache.kept] == ["geometry"]


def test_a_batch_is_padded(reader):
    data = dataset(reader)
    batch = collate([data[index] for index in range(3)])
    for level, length in (("10x", 80), ("20x", 320)):
        assert batch["tokens"][level].shape == (3, length, DIM)
        assert batch["cells"][level].shape == (3, length, 3)
        mask = batch["mask"][level]
        assert mask.sum(dim=1).tolist() == [length, length // 4, 0]
        assert (batch["tokens"][level][~mask] == 0).all()
        assert (batch["cells"][level][~mask] == -1).all()
        assert (batch["cells"][level][mask] >= 0).all()
        assert batch["cells"][level].dtype == torch.int64
    assert batch["parents"].shape == (3, 320)
    assert (batch["parents"][~batch["mask"]["20x"]] == -1).all()
    assert batch["weight"].tolist() == [1, 1, 1]
    assert batch["targets"]["label"].tolist() == [0, 1, 2]


def test_bags_without_any_tile_make_a_batch(reader):
    batch = collate([dataset(reader)[2]])
    assert batch["tokens"]["20x"].shape == (1, 1, DIM)
    assert not batch["mask"]["20x"].any()


def test_an_epoch_has_everybody_once_and_its_own_order():
    batches = EpochBatches(10, 4, seed=1)
    first = list(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for index in batch) == list(range(10))
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first
    assert len(batches) == 3


def test_ranks_share_the_batches_of_one():
    whole = list(EpochBatches(11, 4, seed=1))
    ranks = [list(EpochBatches(11, 4, seed=1, rank=rank, ranks=2)) for rank in range(2)]
    assert [len(batch) for batch in ranks[0]] == [len(batch) for batch in ranks[1]] == [2, 2, 2]
    shared = [sorted(a + b) for a, b in zip(*ranks, strict=True)]
    assert shared[:2] == [sorted(batch) for batch in whole[:2]]
    assert sorted([*whole[2], whole[0][0]]) == shared[2]


def test_validation_batches_are_patients(reader):
    training, validation = dataset(reader, max_tiles=5), dataset(reader, slides="mean")
    data = BagDataModule(training, validation, batch_size=2, seed=0)
    batches = list(data.val_dataloader())
    assert [batch["targets"]["label"].tolist() for batch in batches] == [[0, 0], [1], [2]]
    assert [batch["cells"]["10x"][:, 0, 0].tolist() for batch in batches] == [[0, 0], [0], [-1]]
    with pytest.raises(HistillError, match="3 cannot share batches of 2"):
        data.check(3)


def test_validation_patients_may_share_a_batch(reader, monkeypatch):
    training, validation = dataset(reader, max_tiles=5), dataset(reader, slides="mean")

    def labels(**options):
        loader = BagDataModule(training, validation, batch_size=2, seed=0, **options).val_dataloader()
        return [(batch["targets"]["label"].tolist(), batch["patient"].tolist()) for batch in loader]

    assert labels(together=True) == [([0, 0, 1, 2], [0, 0, 1, 2])]
    sizes = [validation.size(index) for index in range(4)]
    # The two slides of the first patient stay together, and the second one has no place beside them.
    monkeypatch.setattr(module, "VALIDATION_TILES", 3 * max(sizes[:3]) - 1)
    assert labels(together=True)[0] == ([0, 0], [0, 0])
    monkeypatch.setattr(module, "VALIDATION_TILES", 0)
    assert labels(together=True) == labels() == [([0, 0], [0, 0]), ([1], [1]), ([2], [2])]


def test_the_epoch_reaches_order_and_subsets(reader):
    data = BagDataModule(dataset(reader, max_tiles=5), dataset(reader), batch_size=2, seed=0)
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        epochs.append([batch["tokens"]["20x"] for batch in loader])
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))


def test_loading_draws_no_common_random_number(reader):
    """What is drawn in an epoch must not depend on when its loader was made."""
    data = BagDataModule(dataset(reader, max_tiles=5), dataset(reader), batch_size=2, seed=0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.rand(3), expected)


def test_tokens_are_scaled(reader):
    scalers = {level: WinsorizedScaler().fit(reader.read_level("a", level)) for level in reader.levels}
    instances = Instances.of(reader, ["a"], "bag")
    item = BagDataset(instances, scalers, {"y": torch.zeros(1)})[0]
    np.testing.assert_array_equal(
        item["tokens"]["20x"].numpy(), scalers["20x"].transform(reader.read_level("a", "20x"))
    )

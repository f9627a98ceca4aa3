"""Batches for training: padded bags, where their tiles lie, labels, and whatever else a stage learns from."""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from histill.data.bags import Instances
from histill.data.geometry import COARSE, FINE
from histill.data.scaling import WinsorizedScaler
from histill.data.subset import draw, random_stream
from histill.errors import HistillError

VALIDATION_TILES = 16_384  # padded, of a validation batch and magnification


class BagDataset(Dataset):
    """Instances as bags.

    Parameters
    ----------
    targets
        Name -> one tensor row an instance: labels, genes, a teacher's outputs.
    max_tiles
        A random subset of at most so many tiles a magnification; None: all. It follows from `seed`, the epoch
        (attribute `epoch`) and the bag's name alone.
    """

    def __init__(
        self,
        instances: Instances,
        scalers: dict[str, WinsorizedScaler],
        targets: dict[str, Tensor],
        *,
        max_tiles: int | None = None,
        seed: int = 0,
    ):
        self.instances = instances
        self.scalers = scalers
        self.targets = targets
        self.max_tiles, self.seed, self.epoch = max_tiles, seed, 0
        self._weights = torch.from_numpy(instances.weights)

    def __len__(self) -> int:
        return len(self.instances.names)

    def size(self, index: int) -> int:
        """Tiles of a bag at the magnification that has most."""
        bags, name = self.instances.bags, self.instances.names[index]
        return max((bags.count(name, level) for level in bags.levels), default=1)

    def __getitem__(self, index: int) -> dict:
        bags, name = self.instances.bags, self.instances.names[index]
        targets = {key: rows_[index] for key, rows_ in self.targets.items()}
        patient = torch.tensor(self.instances.patient[index])
        item: dict = {"tokens": {}, "cells": {}, "weight": self._weights[index], "patient": patient, "targets": targets}
        if not bags.levels:  # of a network that reads no slide
            return item
        geometry, counts = bags.geometry(name), {level: bags.count(name, level) for level in bags.levels}
        limit = self.max_tiles or max(counts.values())
        rows = draw(counts, geometry.parents, limit, random_stream(self.seed, self.epoch, name))
        for level, chosen in rows.items():
            whole = len(chosen) == counts[level]
            x = bags.read_level(name, level) if whole else bags.rows(name, level, chosen)
            item["tokens"][level] = torch.from_numpy(self.scalers[level].transform(x))
            item["cells"][level] = torch.from_numpy(geometry.cells[level][chosen].astype(np.int64))
        if geometry.parents is not None:
            place = np.full(counts[COARSE] + 1, -1)  # the last one stands for −1
            place[rows[COARSE]] = np.arange(len(rows[COARSE]))
            item["parents"] = torch.from_numpy(place[geometry.parents[rows[FINE]]])
        return item


class MeanBagDataset(BagDataset):
    """Bags of one token a magnification: the mean of all their tiles, after scaling. Each is read once and kept.

    For networks that look at nothing else: no tiles are read again in every epoch.
    """

    def __init__(self, instances: Instances, scalers: dict[str, WinsorizedScaler], targets: dict[str, Tensor]):
        super().__init__(instances, scalers, targets)
        self._means: dict[int, dict] = {}

    def size(self, index: int) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        if index not in self._means:
            item = super().__getitem__(index)
            item.pop("parents", None)
            for level, tiles in item["tokens"].items():
                item["tokens"][level] = tiles.mean(dim=0, keepdim=True) if len(tiles) else tiles
                item["cells"][level] = torch.full((min(1, len(tiles)), 3), -1)
            self._means[index] = item
        return self._means[index]


def collate(items: list[dict]) -> dict:
    """Pad bags to the longest of the batch.

    Returns
    -------
    dict
        `tokens[level]` float32 [B, N, F]; `mask[level]` bool [B, N], True at real tiles; `cells[level]` int64
        [B, N, 3], slide number, column and row, −1 where not known; `parents` int64 [B, N20], position of a 20x tile's
        10x tile in `tokens["10x"]`, −1 where it is not in the bag (no such key without both magnifications); `weight`
        float32 [B]; `patient` int64 [B], its number among the dataset's; `targets`, name -> [B, ...].
    """
    batch: dict = {"tokens": {}, "mask": {}, "cells": {}, "targets": {}}
    for level in items[0]["tokens"]:
        counts = torch.tensor([len(item["tokens"][level]) for item in items])
        length = max(1, int(counts.max()))
        batch["tokens"][level] = torch.stack([_padded(item["tokens"][level], length, 0) for item in items])
        batch["cells"][level] = torch.stack([_padded(item["cells"][level], length, -1) for item in items])
        batch["mask"][level] = torch.arange(length)[None, :] < counts[:, None]
    if "parents" in items[0]:
        length = batch["mask"][FINE].shape[1]
        batch["parents"] = torch.stack([_padded(item["parents"], length, -1) for item in items])
    for name in ("weight", "patient"):
        batch[name] = torch.stack([item[name] for item in items])
    for name in items[0]["targets"]:
        batch["targets"][name] = torch.stack([item["targets"][name] for item in items])
    return batch


def _padded(rows: Tensor, length: int, value: int) -> Tensor:
    """Rows [N, ...] followed by rows of one value up to `length`."""
    return F.pad(rows, (*(0, 0) * (rows.dim() - 1), 0, length - len(rows)), value=value)


class EpochBatches(Sampler[list[int]]):
    """Instances in random order, cut into batches that the ranks share.

    The order follows from the seed and the attribute `epoch` alone. Every rank gets as many batches; where the last
    one cannot be shared evenly, the first instances of the epoch fill it up. With `strata` [I] every batch has as much
    of each as the whole.
    """

    def __init__(
        self,
        instances: int,
        batch_size: int,
        *,
        seed: int,
        strata: np.ndarray | None = None,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.instances, self.batch_size, self.seed, self.epoch = instances, batch_size, seed, 0
        self.strata, self.rank, self.ranks = strata, rank, ranks

    def __len__(self) -> int:
        return -(-self.instances // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = random_stream(self.seed, self.epoch, "order")
        order = generator.permutation(self.instances)
        if self.strata is not None:
            order = order[np.argsort(_places(self.strata[order], generator), kind="stable")]
        order = np.append(order, np.resize(order, -len(order) % self.ranks)).tolist()
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.ranks]


def _places(strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Where in an epoch, from 0 to 1, each of a random order of instances comes: those of a stratum evenly spaced."""
    places = np.empty(len(strata))
    for stratum in np.unique(strata):
        own = strata == stratum
        places[own] = (np.arange(own.sum()) + generator.random()) / own.sum()
    return places


class BagDataModule(lightning.LightningDataModule):
    """Training and inner-validation bags of one fold.

    A training batch holds `batch_size` instances over all ranks together; a validation batch all instances of one
    patient, whose prediction is one, or (`together`) of as many patients as `VALIDATION_TILES` hold.
    """

    def __init__(
        self,
        train: BagDataset,
        validation: BagDataset,
        *,
        batch_size: int,
        seed: int,
        strata: np.ndarray | None = None,
        together: bool = False,
    ):
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.seed, self.strata, self.together = batch_size, seed, strata, together
        self._batches: EpochBatches | None = None

    def set_epoch(self, epoch: int) -> None:
        """Whose order and whose subsets the next pass over the training bags has."""
        self.train.epoch = self._batches.epoch = epoch

    def train_dataloader(self) -> DataLoader:
        own = {"seed": self.seed, "strata": self.strata, **self._place()}
        self._batches = EpochBatches(len(self.train), self.batch_size, **own)
        return self._loader(self.train, self._batches)

    def val_dataloader(self) -> DataLoader:
        patient = self.validation.instances.patient
        groups = [np.flatnonzero(patient == number).tolist() for number in np.unique(patient)]
        place = self._place()
        own = groups[place["rank"] :: place["ranks"]]
        return self._loader(self.validation, self._joined(own) if self.together else own)

    def _joined(self, groups: list[list[int]]) -> list[list[int]]:
        """Batches of several patients' instances, whose padded tiles are no more than `VALIDATION_TILES`."""
        batches: list[list[int]] = []
        longest = 0
        for group in groups:
            own = max(map(self.validation.size, group))
            if batches and max(longest, own) * (len(batches[-1]) + len(group)) <= VALIDATION_TILES:
                batches[-1] += group
                longest = max(longest, own)
            else:
                batches.append(list(group))
                longest = own
        return batches

    def check(self, ranks: int) -> None:
        """Refuse more ranks than can share the batches.

        Raises
        ------
        HistillError
            If `batch_size` is no multiple of the ranks, or there are fewer validation patients.
        """
        patients = len(np.unique(self.validation.instances.patient))
        if self.batch_size % ranks:
            raise HistillError(
                f"training.devices: {ranks} cannot share batches of {self.batch_size}",
                mend="make training.model.batch_size a multiple of it",
            )
        if patients < ranks:
            raise HistillError(
                f"training.devices: {ranks}, but there are {patients} validation patients", mend="use fewer devices"
            )

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "ranks": 1}
        return {"rank": self.trainer.global_rank, "ranks": self.trainer.world_size}

    def _loader(self, dataset: BagDataset, batches) -> DataLoader:
        # A generator of its own: a loader's iterator draws a number, which must not come from what seeds an epoch.
        return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())

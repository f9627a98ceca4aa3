"""Batches for training: padded bags, labels, and whatever else a stage learns from."""

from __future__ import annotations

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from histill.data.bags import BagReader
from histill.data.scaling import WinsorizedScaler


class BagDataset(Dataset):
    """Patients as bags.

    Parameters
    ----------
    targets
        Name -> one tensor row a patient: labels, genes, a teacher's outputs.
    max_tiles
        With `train`, a random subset of at most so many tiles a magnification, drawn anew each time.
    """

    def __init__(
        self,
        patients: list[str],
        bags: BagReader,
        scalers: dict[str, WinsorizedScaler],
        targets: dict[str, Tensor],
        *,
        max_tiles: int | None = None,
        seed: int = 0,
    ):
        self.patients = patients
        self.bags = bags
        self.scalers = scalers
        self.targets = targets
        self.max_tiles = max_tiles
        self._generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, index: int) -> dict:
        tokens = {}
        patient = self.patients[index]
        for level in self.bags.levels:
            count = self.bags.count(patient, level)
            if self.max_tiles and count > self.max_tiles:
                chosen = np.sort(self._generator.choice(count, self.max_tiles, replace=False))
                x = self.bags.rows(patient, level, chosen)
            else:
                x = self.bags.read_level(patient, level)
            tokens[level] = torch.from_numpy(self.scalers[level].transform(x))
        return {"tokens": tokens, "targets": {name: rows[index] for name, rows in self.targets.items()}}


def collate(items: list[dict]) -> dict:
    """Pad bags to the longest of the batch; `mask` is True at real tiles."""
    batch: dict = {"tokens": {}, "mask": {}, "targets": {}}
    for level in items[0]["tokens"]:
        bags = [item["tokens"][level] for item in items]
        length = max(1, *(len(bag) for bag in bags))
        batch["tokens"][level] = torch.stack(
            [torch.nn.functional.pad(bag, (0, 0, 0, length - len(bag))) for bag in bags]
        )
        batch["mask"][level] = torch.arange(length)[None, :] < torch.tensor([len(bag) for bag in bags])[:, None]
    for name in items[0]["targets"]:
        batch["targets"][name] = torch.stack([item["targets"][name] for item in items])
    return batch


class BagDataModule(lightning.LightningDataModule):
    """Training and inner-validation bags of one fold."""

    def __init__(self, train: BagDataset, validation: BagDataset, *, batch_size: int, seed: int):
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.seed = batch_size, seed

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=collate, generator=generator)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, self.batch_size, collate_fn=collate)

"""Batches of fields in memory that processes share: children fill places in them, this process encodes and frees them.

Places are numbered on from 0 over all slides of a job; batch b holds places b·F to (b + 1)·F. Batch b lies where batch
b − K lay, so it may be filled once that one is free. This process frees batches in order; beside the pixels only two
counts are shared: what is free, and what has been filled.
"""

from __future__ import annotations

import mmap
import time

import numpy as np

_HEAD = 64  # bytes before the pixels: the counts
_PAUSE_SECONDS = 0.001


class Ring:
    """K batches of F fields.

    Parameters
    ----------
    batches
        K.
    fields
        F.
    side
        Side of a field in pixels.
    """

    def __init__(self, batches: int, fields: int, side: int):
        self.batches, self.fields = batches, fields
        self._memory = mmap.mmap(-1, _HEAD + batches * fields * side * side * 3)
        self._counts = np.frombuffer(self._memory, np.int64, 2)  # batches freed, places filled
        pixels = np.frombuffer(self._memory, np.uint8, offset=_HEAD)
        self._pixels = pixels.reshape(batches, fields, side, side, 3)

    def batch(self, number: int) -> np.ndarray:
        """Fields of a batch, uint8 [F, side, side, 3]."""
        return self._pixels[number % self.batches]

    def place(self, number: int) -> np.ndarray:
        """The field at a place, uint8 [side, side, 3]."""
        return self.batch(number // self.fields)[number % self.fields]

    def end(self) -> int:
        """The first place that may not be filled yet."""
        return (int(self._counts[0]) + self.batches) * self.fields

    def wait(self, place: int) -> None:
        """Wait until a place may be filled."""
        while place >= self.end():
            time.sleep(_PAUSE_SECONDS)

    def free(self, batch: int) -> None:
        """Give back a batch, and all before it."""
        self._counts[0] = batch + 1

    def fill(self, place: int) -> None:
        """Say that the places below this one are filled."""
        self._counts[1] = max(self._counts[1], place)

    def filled(self, batch: int) -> float:
        """Batches that are filled, counted from this one, which is."""
        return max(1.0, (int(self._counts[1]) - batch * self.fields) / self.fields)

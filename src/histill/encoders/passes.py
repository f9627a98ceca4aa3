"""One pass of fields through several encoders: every tile is cut once, at both magnifications.

A field is what is read of a slide: [2·S, 2·S] px at 20x for tiles of S px. Its quarters are the four 20x tiles, row by
row, and its 2 × 2 area average is the 10x tile. Networks work in lanes, one a device (`histill.encoders.lanes`, which
alone needs torch); other encoders are given arrays, one magnification at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from histill.errors import HistillError
from histill.magnifications import MAGNIFICATIONS

if TYPE_CHECKING:
    from histill.encoders.build import Encoder
    from histill.encoders.lanes import Lane

CHILDREN = 4  # 20x tiles of a field
TILES = CHILDREN + 1  # of a field, the 10x tile last


class Pass:
    """One pass of fields through several encoders.

    Parameters
    ----------
    encoders
        Name -> encoder. Those with `shares_tiles` (`histill.encoders.network`) share the tiles of their device.
    size
        Side S of a tile in pixels.
    fields
        Fields F of a full batch.

    Attributes
    ----------
    warnings
        What the user should know, such as that memory ran out and fewer tiles at a time are encoded since.

    Raises
    ------
    HistillError
        When a device has no room for a batch of tiles.
    """

    def __init__(self, encoders: dict[str, Encoder], *, size: int, fields: int):
        if size < 1 or fields < 1:
            raise ValueError(f"a pass of {fields} fields with tiles of {size} px")
        self.warnings: list[str] = []
        self._shape = (fields, 2 * size, 2 * size, 3)
        networks = {name: encoder for name, encoder in encoders.items() if getattr(encoder, "shares_tiles", False)}
        self._others = {name: encoder for name, encoder in encoders.items() if name not in networks}
        self._names = list(encoders)
        self._lanes = self._open_lanes(networks, size, fields)
        self._seconds = 0.0

    def _open_lanes(self, networks: dict[str, Encoder], size: int, fields: int) -> list[Lane]:
        if not networks:
            return []
        from histill.encoders.lanes import open_lanes

        return open_lanes(networks, size=size, fields=fields, warnings=self.warnings)

    @property
    def busy_seconds(self) -> float:
        """Time that encoders were at work so far: the devices' by their own clocks, once a batch is done there.

        Devices work beside each other, so that the sum may exceed the time that went by.
        """
        return self._seconds + sum(lane.busy_seconds() for lane in self._lanes)

    def submit(self, fields: np.ndarray, count: int) -> Encoded:
        """Hand a batch over.

        A tile's vectors do not depend on its place in the batch nor on what else is in it; on a CPU that holds to the
        bit, as long as memory suffices.

        Parameters
        ----------
        fields
            uint8 RGB [F, 2·S, 2·S, 3], of which the first `count` hold fields. It may be written to again as soon as
            this returns, which on a GPU is before the work is done.

        Raises
        ------
        HistillError
            When there is no memory for a single tile, or an encoder gives something else than its recipe says.
        ValueError
            When the array or the count are not of this pass.
        """
        if fields.shape != self._shape or fields.dtype != np.uint8:
            raise ValueError(f"fields are {fields.dtype} {fields.shape}, this pass takes uint8 {self._shape}")
        if not 0 <= count <= len(fields):
            raise ValueError(f"{count} fields in a batch of {len(fields)}")
        vectors: dict[str, np.ndarray] = {}
        waits = []
        for lane in self._lanes:  # GPUs first: they work on while the host goes on
            found, wait = lane.submit(fields, count)
            vectors |= found
            waits.append(wait)
        start = time.perf_counter()
        for name, encoder in self._others.items():
            vectors[name] = _by_arrays(name, encoder, fields[:count])
        self._seconds += time.perf_counter() - start
        return Encoded({name: vectors[name] for name in self._names}, count, waits)


class Encoded:
    """The vectors of a batch, which may still be on their way from a device.

    Parameters
    ----------
    vectors
        Encoder -> float32 [at least `count`, 5, dim], the four 20x tiles of a field and its 10x tile.
    waits
        Return when the vectors are there.
    """

    def __init__(self, vectors: dict[str, np.ndarray], count: int, waits: list[Callable[[], None]]):
        self._vectors, self._count, self._waits = vectors, count, waits

    def result(self) -> dict[str, dict[str, np.ndarray]]:
        """Encoder -> `10x`: float32 [count, dim], `20x`: float32 [4·count, dim]. Waits for the devices."""
        for wait in self._waits:
            wait()
        return {
            name: {
                "10x": np.ascontiguousarray(vectors[: self._count, CHILDREN]),
                "20x": vectors[: self._count, :CHILDREN].reshape(CHILDREN * self._count, vectors.shape[-1]),
            }
            for name, vectors in self._vectors.items()
        }


def quarters(fields: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The 20x tiles of uint8 fields [B, 2·S, 2·S, 3]: [4·B, S, S, 3], row-major within each field.

    Parameters
    ----------
    out
        Where to put them, [B, 4, S, S, 3].
    """
    count, size = len(fields), fields.shape[1] // 2
    if out is None:
        out = np.empty((count, CHILDREN, size, size, 3), np.uint8)
    for y in range(2):
        for x in range(2):
            out[:, 2 * y + x] = fields[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
    return out.reshape(CHILDREN * count, size, size, 3)


def averages(fields: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The 10x tiles of uint8 fields [B, 2·S, 2·S, 3]: [B, S, S, 3], each pixel (a + b + c + d + 2) >> 2.

    Parameters
    ----------
    out
        Where to put them, [B, S, S, 3].
    """
    count, size = len(fields), fields.shape[1] // 2
    if out is None:
        out = np.empty((count, size, size, 3), np.uint8)
    for field, tile in zip(fields, out, strict=True):
        cv2.resize(field, (size, size), dst=tile, interpolation=cv2.INTER_AREA)
    return out


def _by_arrays(name: str, encoder: Encoder, fields: np.ndarray) -> np.ndarray:
    """Vectors [B, 5, dim] of an encoder that takes arrays; it may keep them and write to them."""
    vectors = np.empty((len(fields), TILES, encoder.dim), np.float32)
    if len(fields) == 0:
        return vectors
    fine = _checked(name, encoder, quarters(fields), "20x")
    vectors[:, :CHILDREN] = fine.reshape(len(fields), CHILDREN, encoder.dim)
    vectors[:, CHILDREN] = _checked(name, encoder, averages(fields), "10x")
    return vectors


def _checked(name: str, encoder: Encoder, tiles: np.ndarray, magnification: str) -> np.ndarray:
    try:
        found = np.asarray(encoder.encode(tiles, MAGNIFICATIONS[magnification]))
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; no slide is at fault
        raise HistillError(
            f"encoder '{name}' failed on {len(tiles)} tiles at {magnification}: {type(error).__name__}: {error}",
            mend="tell its authors, or choose another features.encoder",
        ) from error
    if found.dtype.kind not in "fiu":
        raise HistillError(
            f"encoder '{name}' gave values of type {found.dtype}", mend="tell its authors: floats are due"
        )
    if found.shape != (len(tiles), encoder.dim):
        raise HistillError(
            f"encoder '{name}' gave {found.shape} for {len(tiles)} tiles, its recipe says {encoder.dim} values each",
            mend="tell its authors, or choose another features.encoder",
        )
    return found

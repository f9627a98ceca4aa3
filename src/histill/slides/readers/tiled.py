"""Readers that decode a file's own tiles where they can, and share them between threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histill.slides.readers.base import Reader
from histill.slides.readers.cache import TileCache
from histill.slides.readers.direct import DirectTiles
from histill.slides.readers.request import Window


class TiledReader(Reader):
    """A reader with a cache of decoded tiles, shared by its clones.

    A reader sets `_tiles` when it describes the file, if there are levels that need no library.
    """

    def __init__(self, path: str | Path, *, resample: str = "area"):
        self._cache = self._new_cache()
        self._tiles: DirectTiles | None = None
        super().__init__(path, resample=resample)

    def expect(self, boxes: np.ndarray, out_width: int, out_height: int) -> None:
        super().expect(boxes, out_width, out_height)
        self._after_fork()
        requests = [self._request(*box, out_width, out_height) for box in boxes.tolist()]
        spans = [(request.index, request.window) for request in requests if request is not None]
        self._cache.expect((span, self._keys(*span)) for span in spans)

    def clone(self) -> TiledReader:
        other = super().clone()
        other._tiles = None if self._tiles is None else self._tiles.clone()
        return other

    def _release(self) -> None:
        super()._release()
        if self._tiles is not None:
            self._tiles.close()

    def _new_cache(self) -> TileCache:
        return TileCache()

    def _read_native(self, index: int, window: Window, out: np.ndarray, factor: int = 1) -> bool:
        if self._tiles is None:
            return False
        # Where the stated downsample is no whole number the library starts windows between pixels.
        whole = self._stated is None or self._stated[index].is_integer()
        return self._tiles.read(index, window, out, self._library, anywhere=whole, factor=factor)

    def _library(self, index: int, window: Window) -> np.ndarray:
        try:
            return self._read_level(self._open(), index, window)[0]
        except BaseException:
            self._release()  # as after any failing read
            raise

    def _after_fork(self) -> bool:
        forked = super()._after_fork()
        if forked:
            self._cache = self._new_cache()
            if self._tiles is not None:
                self._tiles.renew(self._cache)
        return forked

    def _keys(self, index: int, window: Window) -> list[Any]:
        """Names in the cache of the tiles that a window touches."""
        return [] if self._tiles is None else self._tiles.keys(index, window)

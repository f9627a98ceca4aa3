"""What all slide readers share.

These are the choice of the level, resampling, white outside the slide, colour profiles, and recovery. A handle belongs
to one process: after a fork it is opened anew. One undecodable tile poisons an OpenSlide handle for good, so a failing
read is tried once more on a fresh handle, and the handle is dropped after a second failure. A reader is for one thread;
other threads read with its clones.
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers import icc as colour_profile
from histill.slides.readers import levels as pyramid
from histill.slides.readers.levels import Level
from histill.slides.readers.request import Axis, Request, Window, span
from histill.slides.readers.resample import METHODS, Box, margin, resample
from histill.slides.readers.white import WHITE, framed, on_white
from histill.storage import patiently

_SCRATCH_BYTES = 32 << 20  # memory a reader keeps for the pixels that it resamples
MEND_DAMAGED = "the file is damaged or incomplete: copy or download it again, and compare its checksum"


class Reader(ABC):
    """A slide file through one library.

    Parameters
    ----------
    path
        The slide's main file.
    resample
        `area` or `lanczos`.

    Raises
    ------
    SlideError
        If the file has no pixels or none that can be used; libraries raise their own errors besides.
    """

    name: str

    def __init__(self, path: str | Path, *, resample: str = "area"):
        if resample not in METHODS:
            raise ValueError(f"resample is one of {', '.join(METHODS)}, not {resample!r}")
        self.path = Path(path)
        self.refusals: list[str] = []
        self.notes: list[str] = []
        self._method = resample
        self._handle: Any = None
        self._owner = os.getpid()
        self._inherited: list[Any] = []
        self._clones: list[Reader] = []
        self._scratch = np.empty(0, np.uint8)
        self._stated: list[float] | None = None
        self._transform: Any = None
        try:
            self._sizes = self._describe(self._open())
            if not self._sizes or min(min(size) for size in self._sizes) < 1:
                raise SlideError(f"it has no pixels: levels {self._sizes}", mend=MEND_DAMAGED)
            self.dimensions = self._sizes[0]
            self.levels, self._factors = pyramid.scales(self._sizes, self._stated)
        except BaseException:
            self.close()
            raise

    @cached_property
    def icc_profile(self) -> str | None:
        profile = self._profile(self._open())
        return colour_profile.describe(profile) if profile else None

    def to_srgb(self) -> None:
        """Turn pixels to sRGB by the slide's own profile from now on. Without a profile they stay, with a note.

        Raises
        ------
        SlideError
            If the profile cannot be used.
        """
        profile = self._profile(self._open())
        if profile:
            self._transform = colour_profile.transform(profile, self.path)
        else:
            self.notes.append("slides.icc: the file carries no ICC profile; its colours are as stored")

    def doubt(self) -> str | None:
        """Why another reader might read this file better, if it can; None if this one does well."""
        return None

    def level_for(self, x: float, y: float) -> Level:
        """The level that `read_region` reads for `x` and `y` level-0 pixels per pixel."""
        return self.levels[pyramid.level_for(self._factors, x, y)]

    def expect(self, boxes: np.ndarray, out_width: int, out_height: int) -> None:
        """Say which regions will be read, by this reader and its clones.

        Tiles of the file that several of them touch are then decoded once and kept until their last use, as far as the
        cache has room (`cache.CACHE_BYTES`). Other regions can be read all the same. Where the library decodes, this
        changes nothing.

        Parameters
        ----------
        boxes
            x, y, width, height [N, 4] in level-0 pixels, in about the order in which they will be read.
        out_width, out_height
            Size of each answer in pixels.
        """
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes are x, y, width, height [N, 4], not of shape {boxes.shape}")

    def clone(self) -> Reader:
        """A reader of the same slide for another thread, with a handle of its own, opened when it is needed.

        Notes and decoded tiles are shared. It is closed with this reader, or by itself.
        """
        self._after_fork()
        other = copy.copy(self)
        other._handle, other._inherited, other._clones = None, [], []
        other._scratch = np.empty(0, np.uint8)
        self._clones.append(other)
        return other

    def close(self) -> None:
        """Release the file; a later read opens it again. No thread may be reading with this reader or a clone."""
        for other in self._clones:
            other.close()
        self._release()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_region(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        out_width: int,
        out_height: int,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """A region of the slide, resampled.

        Read from the coarsest level that is at least as fine as asked. Edges are exact to a fraction of that level's
        pixels. What is outside the slide, and what the slide holds as transparent, is white; a pixel that is partly
        outside is partly white.

        Parameters
        ----------
        x, y, width, height
            Region in level-0 pixels; may reach beyond the slide.
        out_width, out_height
            Size of the answer in pixels.
        out
            Where to write it: uint8 [out_height, out_width, 3], C-contiguous. After an error its content is undefined.

        Returns
        -------
        uint8 RGB array [out_height, out_width, 3]: `out`, where it is given.

        Raises
        ------
        SlideError
            With the reader's own reason, if the pixels cannot be decoded.
        UnreachableError
            If the storage fails again and again.
        """
        if min(width, height, out_width, out_height) < 1:
            raise ValueError(
                f"a region and its picture need at least one pixel: {width, height, out_width, out_height}"
            )
        if out is None:
            out = np.empty((out_height, out_width, 3), np.uint8)
        elif out.shape != (out_height, out_width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out is uint8 {out_height, out_width, 3}, contiguous; not {out.dtype} {out.shape}")
        self._after_fork()
        request = self._request(x, y, width, height, out_width, out_height)
        if request is None:
            out[:] = WHITE
            return out
        columns, rows = request.columns, request.rows
        whole = columns.inside and rows.inside
        place = out if whole else np.empty((rows.count, columns.count, 3), np.uint8)
        pixels = patiently(lambda: self._attempt(request, place), self.path, note=self._note)
        if self._transform is not None:
            pixels[:] = colour_profile.apply(self._transform, pixels)
        if whole:
            return pixels
        framed(pixels, columns, rows, out)
        return out

    def _attempt(self, request: Request, out: np.ndarray) -> np.ndarray:
        try:
            return self._resampled(request, out)
        except BaseException:
            self._release()  # what was opened before the storage failed may be of no use
            raise

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _request(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> Request | None:
        """How a region is read; None if it lies outside the slide."""
        columns = Axis(x, width / out_width, out_width, self.dimensions[0])
        rows = Axis(y, height / out_height, out_height, self.dimensions[1])
        if columns.count < 1 or rows.count < 1:
            return None
        index = pyramid.level_for(self._factors, columns.scale, rows.scale)
        dx, dy = self._factors[index]
        box = Box(columns.low / dx, rows.low / dy, columns.high / dx, rows.high / dy)
        level = self.levels[index]
        left, right = span(box.left, box.right, margin(columns.scale / dx, self._method), level.width)
        top, bottom = span(box.top, box.bottom, margin(rows.scale / dy, self._method), level.height)
        return Request(columns, rows, index, box, Window(left, top, right, bottom))

    def _resampled(self, request: Request, out: np.ndarray) -> np.ndarray:
        _, _, index, box, window = request
        factor = request.factor if self._method == "area" else int(request.factor == 1)
        if factor and self._read_native(index, window, out, factor):
            return out
        pixels, (x, y) = self._buffer(window), (window.left, window.top)
        if factor == 1 or not self._read_native(index, window, pixels):
            pixels, (x, y) = self._read_twice(index, window)
        box = Box(box.left - x, box.top - y, box.right - x, box.bottom - y)
        return resample(pixels, box, out.shape[1], out.shape[0], self._method, out=out)

    def _buffer(self, window: Window) -> np.ndarray:
        """Memory for the pixels of a window, the same each time."""
        shape = window.bottom - window.top, window.right - window.left, 3
        size = shape[0] * shape[1] * 3
        if size > _SCRATCH_BYTES:
            return np.empty(shape, np.uint8)
        if size > self._scratch.size:
            self._scratch = np.empty(size, np.uint8)
        return self._scratch[:size].reshape(shape)

    def _after_fork(self) -> bool:
        """Give up what another process opened, if one did; to close it might wait for a lock that nobody releases."""
        if self._owner == os.getpid():
            return False
        self._inherited.append(self._handle)
        self._handle, self._owner = None, os.getpid()
        return True

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None and self._owner == os.getpid():
            handle.close()

    def _open(self) -> Any:
        self._after_fork()
        if self._handle is None:
            self._handle = self._new_handle()
        return self._handle

    def _read_twice(self, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        try:
            pixels, origin = self._read_level(self._open(), index, window)
            return on_white(pixels), origin
        except Exception:  # decoders raise their own types; the second attempt tells the user what they say
            self._release()
        try:
            pixels, origin = self._read_level(self._open(), index, window)
            return on_white(pixels), origin
        except Exception as error:
            self._release()
            at = f"x {round(window.left * self._factors[index][0])}, y {round(window.top * self._factors[index][1])}"
            raise SlideError(
                f"{self.path}: pixels at {at} (level {index}) cannot be read: {self.name} says: {reason(error)}",
                mend=getattr(error, "mend", MEND_DAMAGED),
            ) from error

    @abstractmethod
    def _new_handle(self) -> Any:
        """Open the file: an object with `close`."""

    @abstractmethod
    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        """Fill in vendor and properties, and `_stated` downsamples if any; sizes of the levels, finest first."""

    @abstractmethod
    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        """Pixels [height, width, 3 or 4] of a window inside a level, and where on it (x, y) they start."""

    def _read_native(self, index: int, window: Window, out: np.ndarray, factor: int = 1) -> bool:
        """Decode a window of a level without the library, each pixel of `out` the mean of `factor` × `factor`.

        False where that cannot be done; `out` may have been written to.
        """
        return False

    def _profile(self, handle: Any) -> bytes | None:
        """The colour profile in the file."""
        return None


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(getattr(error, "message", str(error)).split()) or type(error).__name__

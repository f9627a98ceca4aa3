"""What every slide reader offers, and what all of them share.

Shared are the choice of the level, resampling, white outside the slide, colour profiles, and recovery. A handle belongs
to one process: after a fork it is opened anew. One undecodable tile poisons an OpenSlide handle for good, so a failing
read is tried once more on a fresh handle, and the handle is dropped after a second failure.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from histill.errors import SlideError
from histill.slides.readers import icc as colour_profile
from histill.slides.readers import levels as pyramid
from histill.slides.readers.levels import Level
from histill.slides.readers.resample import METHODS, Box, margin, resample

WHITE = 255
MEND_DAMAGED = "the file is damaged or incomplete: copy or download it again, and compare its checksum"


class SlideReader(Protocol):
    """What every reader offers.

    Attributes
    ----------
    name
        The reader, a key of `READERS`.
    vendor
        Format as the reader calls it.
    properties
        The reader's properties, all as text.
    dimensions
        (width, height) of level 0 in pixels.
    levels
        Finest first.
    icc_profile
        Name of the slide's colour profile, or None; known whether it is applied or not.
    refusals
        What readers tried before said of the file.
    notes
        What the user should know of how this one reads it.
    """

    name: str
    path: Path
    vendor: str
    refusals: list[str]
    notes: list[str]
    properties: dict[str, str]
    dimensions: tuple[int, int]
    levels: list[Level]
    icc_profile: str | None

    def read_region(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> np.ndarray: ...

    def level_for(self, x: float, y: float) -> Level: ...

    def close(self) -> None: ...

    def __enter__(self) -> SlideReader: ...

    def __exit__(self, *_: object) -> None: ...


class Window(NamedTuple):
    """Whole pixels of a level, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


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

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None and self._owner == os.getpid():
            handle.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_region(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> np.ndarray:
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

        Returns
        -------
        uint8 RGB array [out_height, out_width, 3].

        Raises
        ------
        SlideError
            With the reader's own reason, if the pixels cannot be decoded.
        """
        if min(width, height, out_width, out_height) < 1:
            raise ValueError(
                f"a region and its picture need at least one pixel: {width, height, out_width, out_height}"
            )
        columns = _Axis(x, width / out_width, out_width, self.dimensions[0])
        rows = _Axis(y, height / out_height, out_height, self.dimensions[1])
        if columns.count < 1 or rows.count < 1:
            return np.full((out_height, out_width, 3), WHITE, np.uint8)
        pixels = self._resampled(columns, rows)
        if self._transform is not None:
            pixels = colour_profile.apply(self._transform, pixels)
        if columns.inside and rows.inside:
            return pixels
        share = (rows.share()[:, None] * columns.share())[..., None]
        picture = np.full((out_height, out_width, 3), WHITE, np.uint8)
        mixed = np.rint(pixels * share + WHITE * (1 - share)).astype(np.uint8)
        picture[rows.first : rows.first + rows.count, columns.first : columns.first + columns.count] = mixed
        return picture

    def _resampled(self, columns: _Axis, rows: _Axis) -> np.ndarray:
        index = pyramid.level_for(self._factors, columns.scale, rows.scale)
        dx, dy = self._factors[index]
        box = Box(columns.low / dx, rows.low / dy, columns.high / dx, rows.high / dy)
        more = margin(columns.scale / dx, self._method), margin(rows.scale / dy, self._method)
        level = self.levels[index]
        left, right = _window(box.left, box.right, more[0], level.width)
        top, bottom = _window(box.top, box.bottom, more[1], level.height)
        pixels, (x, y) = self._read_twice(index, Window(left, top, right, bottom))
        box = Box(box.left - x, box.top - y, box.right - x, box.bottom - y)
        return resample(pixels, box, columns.count, rows.count, self._method)

    def _open(self) -> Any:
        if self._owner != os.getpid():
            # Closing a handle that another process uses might wait for a lock that no thread here will release.
            self._inherited.append(self._handle)
            self._handle, self._owner = None, os.getpid()
        if self._handle is None:
            self._handle = self._new_handle()
        return self._handle

    def _read_twice(self, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        try:
            pixels, origin = self._read_level(self._open(), index, window)
            return on_white(pixels), origin
        except Exception:  # decoders raise their own types; the second attempt tells the user what they say
            self.close()
        try:
            pixels, origin = self._read_level(self._open(), index, window)
            return on_white(pixels), origin
        except Exception as error:
            self.close()
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

    def _profile(self, handle: Any) -> bytes | None:
        """The colour profile in the file."""
        return None


class _Axis:
    """One axis of a request: which pixels of the answer touch the slide, and what they span in level-0 pixels."""

    def __init__(self, start: int, scale: float, count: int, length: int):
        self.scale = scale
        self.first = max(0, math.floor(-start / scale))
        self.count = min(count, math.ceil((length - start) / scale)) - self.first
        self.low = start + self.first * scale
        self.high = start + (self.first + self.count) * scale
        self._length = length
        self.inside = self.count == count and self.low >= 0 and self.high <= length + 1e-6

    def share(self) -> np.ndarray:
        """Share of each pixel that is inside the slide, float32 [count]."""
        edges = np.clip(np.linspace(self.low, self.high, self.count + 1), 0, self._length)
        return (np.diff(edges) / self.scale).clip(0, 1).astype(np.float32)


def _window(low: float, high: float, more: int, length: int) -> tuple[int, int]:
    """Whole pixels that cover a span with its margin, inside the level, at least one."""
    left = min(max(math.floor(low + 1e-6) - more, 0), length - 1)
    return left, max(min(math.ceil(high - 1e-6) + more, length), left + 1)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """RGB of 8-bit RGB or RGBA pixels, what is transparent composited on white."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        what = f"the pixels are {pixels.dtype} of shape {pixels.shape}, not 8-bit RGB"
        raise SlideError(what, mend="convert the slide to 8-bit RGB, or leave it out")
    if pixels.shape[2] == 3:
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min() == WHITE:
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    opacity = alpha.astype(np.float32) / WHITE
    return np.rint(colour * opacity + WHITE * (1 - opacity)).astype(np.uint8)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(getattr(error, "message", str(error)).split()) or type(error).__name__

"""Slide readers behind one protocol: pixels of any region at any size, in level-0 coordinates.

Handles are opened on first use and belong to one worker. One undecodable tile poisons an OpenSlide handle for good, so
a failing read is tried once more on a fresh handle, and the handle is dropped after a second failure.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from histill.errors import SlideError

WHITE = 255
LEVEL_TOLERANCE = 1.01  # a level 4.016 times coarser still serves a request for 4


class Level(NamedTuple):
    """One level of the pyramid; `downsample` is relative to level 0."""

    width: int
    height: int
    downsample: float


class SlideReader(Protocol):
    """What every reader offers.

    Attributes
    ----------
    name
        `openslide` or `tiffslide`.
    vendor
        Format as the reader calls it.
    properties
        The reader's properties, all as text.
    dimensions
        (width, height) of level 0 in pixels.
    levels
        Finest first.
    refusals
        What readers tried before said of the file.
    """

    name: str
    path: Path
    vendor: str
    refusals: list[str]
    properties: dict[str, str]
    dimensions: tuple[int, int]
    levels: list[Level]

    def read_region(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> np.ndarray: ...

    def close(self) -> None: ...

    def __enter__(self) -> SlideReader: ...

    def __exit__(self, *_: object) -> None: ...


class _Reader(ABC):
    """Level choice, resampling, white outside the slide, and recovery; subclasses open a file and read from a level."""

    name: str

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.refusals: list[str] = []
        self._handle: Any = None
        self._describe(self._open())

    def _open(self) -> Any:
        if self._handle is None:
            self._handle = self._new_handle()
        return self._handle

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_region(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> np.ndarray:
        """A region of the slide, resampled.

        Read from the coarsest level that is at least as fine as asked, averaged over areas when shrunk (`INTER_AREA`)
        and linear when enlarged. Edges fall on whole pixels of that level. What is outside the slide, and what the
        slide holds as transparent, is white.

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
        index = self._level_for(min(width / out_width, height / out_height))
        level = self.levels[index]
        left, right = _span(x, width, self.dimensions[0], level.width, level.downsample)
        top, bottom = _span(y, height, self.dimensions[1], level.height, level.downsample)
        inside = max(left, 0), max(top, 0), min(right, level.width), min(bottom, level.height)
        pixels = np.full((bottom - top, right - left, 3), WHITE, np.uint8)
        if inside[0] < inside[2] and inside[1] < inside[3]:
            rows, columns = slice(inside[1] - top, inside[3] - top), slice(inside[0] - left, inside[2] - left)
            pixels[rows, columns] = self._read_twice(index, *inside)
        if pixels.shape[:2] == (out_height, out_width):
            return pixels
        shrinks = out_width <= pixels.shape[1] and out_height <= pixels.shape[0]
        return cv2.resize(
            pixels, (out_width, out_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )

    def _level_for(self, downsample: float) -> int:
        fine = [i for i, level in enumerate(self.levels) if level.downsample <= downsample * LEVEL_TOLERANCE]
        return max(fine, key=lambda i: self.levels[i].downsample, default=0)

    def _read_twice(self, index: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        box = index, left, top, right - left, bottom - top
        try:
            return _on_white(self._read_level(self._open(), *box))
        except Exception:  # decoders raise their own types; the second attempt tells the user what they say
            self.close()
        try:
            return _on_white(self._read_level(self._open(), *box))
        except Exception as error:
            self.close()
            scale = self.levels[index].downsample
            at = f"x {round(left * scale)}, y {round(top * scale)} (level {index})"
            mend = "the file is damaged or incomplete: copy or download it again, and compare its checksum"
            raise SlideError(
                f"{self.path}: pixels at {at} cannot be read: {self.name} says: {_reason(error)}",
                mend=getattr(error, "mend", mend),
            ) from error

    @abstractmethod
    def _new_handle(self) -> Any:
        """Open the file."""

    @abstractmethod
    def _describe(self, handle: Any) -> None:
        """Fill in vendor, properties and levels."""

    @abstractmethod
    def _read_level(self, handle: Any, index: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Pixels [height, width, 3 or 4] of a level, in its own coordinates."""


class OpenSlideReader(_Reader):
    """Reads with OpenSlide."""

    name = "openslide"

    def _new_handle(self) -> Any:
        import openslide

        return openslide.OpenSlide(self.path)

    def _describe(self, handle: Any) -> None:
        self.properties = {str(key): str(value) for key, value in handle.properties.items()}
        self.vendor = self.properties.get("openslide.vendor", "unknown")
        self.dimensions = handle.dimensions
        sizes = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
        self.levels = [Level(width, height, float(scale)) for (width, height), scale in sizes]

    def _read_level(self, handle: Any, index: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        scale = self.levels[index].downsample
        return np.asarray(handle.read_region((round(left * scale), round(top * scale)), index, (width, height)))


class TiffSlideReader(_Reader):
    """Reads with tiffslide: TIFF formats that OpenSlide refuses (untiled, other compressions)."""

    name = "tiffslide"

    def _new_handle(self) -> Any:
        from tiffslide import TiffSlide

        return TiffSlide(self.path)

    def _describe(self, handle: Any) -> None:
        self.properties = {str(key): str(value) for key, value in handle.properties.items() if value is not None}
        self.vendor = self.properties.get("tiffslide.vendor", "generic-tiff")
        self.dimensions = tuple(int(side) for side in handle.dimensions)
        sizes = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
        self.levels = [Level(int(width), int(height), float(scale)) for (width, height), scale in sizes]

    def _read_level(self, handle: Any, index: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        scale = self.levels[index].downsample
        location = (round(left * scale), round(top * scale))
        return np.asarray(handle.read_region(location, index, (width, height), as_array=True))


READERS: dict[str, type[_Reader]] = {"openslide": OpenSlideReader, "tiffslide": TiffSlideReader}


def open_slide(path: str | Path, reader: str = "auto") -> SlideReader:
    """Open a slide.

    Parameters
    ----------
    path
        The slide's file (of a multi-file format: its main file).
    reader
        `openslide`, `tiffslide`, or `auto`: OpenSlide, and tiffslide for what OpenSlide refuses.

    Raises
    ------
    SlideError
        With each reader's own reason.
    """
    path = Path(path)
    check_file(path)
    reasons = []
    for name in READERS if reader == "auto" else [reader]:
        try:
            opened = READERS[name](path)
        except Exception as error:  # every library has its own errors for a file it cannot open
            reasons.append(f"{name} says: {_reason(error)}")
        else:
            opened.refusals = [f"read with {name}, since {reason}" for reason in reasons]
            return opened
    raise SlideError(
        f"{path}: no reader can open it: {'; '.join(reasons)}",
        mend="check that the file is a complete slide; convert it to a pyramidal TIFF (vips tiffsave --pyramid --tile)",
    )


def check_file(path: Path) -> None:
    """Refuse what cannot be a slide whatever the reader: nothing there, a folder, an empty file."""
    if path.is_dir():
        raise SlideError(f"{path}: is a folder, not a slide", mend="name the slide's main file in the column path")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SlideError(f"{path}: is no regular file", mend="correct the column path")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror}", mend="correct the column path") from None
    if status.st_size == 0:
        raise SlideError(f"{path}: is empty (0 bytes)", mend="copy or download the file again")


def _span(start: int, length: int, full: int, level_full: int, downsample: float) -> tuple[int, int]:
    """Edges of a level-0 span in pixels of a level, at least one pixel apart."""
    low, high = round(start / downsample), round((start + length) / downsample)
    if start + length <= full:
        high = min(high, level_full)  # levels round their size down: no white line along the slide's far edge
        low = min(low, high - 1)
    return low, max(high, low + 1)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """RGB of 8-bit RGB or RGBA pixels, what is transparent composited on white."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        what = f"the pixels are {pixels.dtype} of shape {pixels.shape}, not 8-bit RGB"
        raise SlideError(what, mend="convert the slide to 8-bit RGB, or leave it out")
    if pixels.shape[2] == 3:
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min() == WHITE:
        return colour
    opacity = alpha.astype(np.float32) / WHITE
    return np.rint(colour * opacity + WHITE * (1 - opacity)).astype(np.uint8)


def _reason(error: Exception) -> str:
    return " ".join(getattr(error, "message", str(error)).split()) or type(error).__name__

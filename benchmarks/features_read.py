"""Ways to read the 20x tiles of a scan, one thread or several, for features.py.

A way takes a `Case` and a number of threads, and returns a call that opens the file and reads every tile once. For the
limit the compressed tiles lie in memory before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import openslide
import tifffile
import tiffslide
from imagecodecs import jpeg8_decode

from histill.encoders.passes import averages, quarters
from histill.slides.grid import Grid, make_grid
from histill.slides.readers import open_slide

SIZE = 224
SIDE = 2 * SIZE  # of a field
TILE = 256  # of the file


@dataclass(frozen=True)
class Case:
    """Fields of one scan.

    Attributes
    ----------
    grid
        Their boxes, and those of their 20x tiles.
    scale
        Level-0 pixels a pixel at 20x, 1 or 2.
    """

    path: Path
    grid: Grid
    scale: int

    @classmethod
    def of(cls, path: Path, dimensions: tuple[int, int], cells: np.ndarray, *, mpp: float, number: int) -> Case:
        """The first fields, row-major, that lie wholly in tissue; `cells` as of features_slide.write_slide."""
        grid = make_grid(dimensions, (mpp, mpp), SIZE)
        inside = [
            row
            for row, (x, y, width, height) in enumerate(grid.parents.tolist())
            if cells[y // TILE : -(-(y + height) // TILE), x // TILE : -(-(x + width) // TILE)].all()
        ]
        return cls(path, grid.take(np.array(inside[:number])), round(0.5 / mpp))

    @cached_property
    def native(self) -> list[bytes]:
        """Every tile of the file that the fields touch, once, in the order of the file."""
        with tifffile.TiffFile(self.path) as file:
            page = file.pages.first
            across = -(-page.imagewidth // TILE)
            touched = {
                row * across + column
                for x, y, width, height in self.grid.parents.tolist()
                for row in range(y // TILE, -(-(y + height) // TILE))
                for column in range(x // TILE, -(-(x + width) // TILE))
            }
            places = ((page.dataoffsets[index], page.databytecounts[index]) for index in sorted(touched))
            return [file.filehandle.read_array("u1", count, offset).tobytes() for offset, count in places]


def limit(case: Case, threads: int) -> Callable[[], None]:
    """Each tile of the file once, from memory into a recycled buffer: nothing that decodes them can be faster."""

    def decode(tiles: list[bytes]) -> None:
        # libjpeg-turbo takes a third longer where rows start on a multiple of 32 bytes; left to chance the limit jumps.
        memory = np.empty(TILE * TILE * 3 + 32, np.uint8)
        buffer = memory[(16 - memory.ctypes.data) % 32 :][: TILE * TILE * 3].reshape(TILE, TILE, 3)
        for data in tiles:
            jpeg8_decode(data, colorspace="YCBCR", outcolorspace="RGB", out=buffer)

    return _shared(decode, [case.native[part::threads] for part in range(threads)])


def with_openslide(case: Case, threads: int) -> Callable[[], None]:
    """openslide-python, a call a tile; a 40x scan is averaged 2 × 2."""

    def read(corners: list[list[int]]) -> None:
        with openslide.OpenSlide(case.path) as slide:
            for corner in corners:
                region = slide.read_region(tuple(corner), 0, (case.scale * SIZE,) * 2)
                _reduce(cv2.cvtColor(np.asarray(region), cv2.COLOR_RGBA2RGB), case.scale)

    return _shared(read, _corners(case, threads))


def with_tiffslide(case: Case, threads: int) -> Callable[[], None]:
    """The same with tiffslide."""

    def read(corners: list[list[int]]) -> None:
        with tiffslide.TiffSlide(case.path) as slide:
            for corner in corners:
                _reduce(slide.read_region(tuple(corner), 0, (case.scale * SIZE,) * 2, as_array=True), case.scale)

    return _shared(read, _corners(case, threads))


def with_histill(case: Case, threads: int) -> Callable[[], None]:
    """The region reader: fields of 448 px, each into the place that it has in a batch."""
    return _fields(case, threads, lambda field: None)


def tiles_20x(case: Case, threads: int) -> Callable[[], None]:
    """The same, and the four 20x tiles of each field cut out."""
    fine = np.empty((1, 4, SIZE, SIZE, 3), np.uint8)
    return _fields(case, threads, lambda field: quarters(field[None], fine))


def tiles_both(case: Case, threads: int) -> Callable[[], None]:
    """The same, and the 10x tile averaged from the field."""
    fine, coarse = np.empty((1, 4, SIZE, SIZE, 3), np.uint8), np.empty((1, SIZE, SIZE, 3), np.uint8)

    def cut(field: np.ndarray) -> None:
        quarters(field[None], fine)
        averages(field[None], coarse)

    return _fields(case, threads, cut)


def _fields(case: Case, threads: int, cut: Callable[[np.ndarray], object]) -> Callable[[], None]:
    boxes = case.grid.parents

    def work() -> None:
        with open_slide(case.path) as reader, ThreadPoolExecutor(threads) as pool:
            reader.expect(boxes, SIDE, SIDE)
            queue = iter(boxes.tolist())  # next() of a list's iterator is atomic
            list(pool.map(lambda _: read(reader.clone(), queue), range(threads)))

    def read(reader, queue) -> None:
        place = np.empty((SIDE, SIDE, 3), np.uint8)
        with reader:
            for box in queue:
                cut(reader.read_region(*box, SIDE, SIDE, out=place))

    return work


def _shared(work: Callable[[list], None], shares: list[list]) -> Callable[[], None]:
    """One thread a share."""

    def run() -> None:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))

    return run


def _corners(case: Case, threads: int) -> list[list[list[int]]]:
    """Level-0 x, y of the 20x tiles, in as many parts as threads."""
    return [part.tolist() for part in np.array_split(case.grid.children[:, :2], threads)]


def _reduce(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels if scale == 1 else cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


LIMIT, OPENSLIDE, FIELDS = "decode limit", "openslide-python", "histill, fields of 448 px"
ALONE, BOTH = "histill, tiles", "histill, tiles at 20x and 10x"
WAYS: dict[str, Callable[[Case, int], Callable[[], None]]] = {
    LIMIT: limit,
    OPENSLIDE: with_openslide,
    "tiffslide": with_tiffslide,
    FIELDS: with_histill,
    ALONE: tiles_20x,
    BOTH: tiles_both,
}


def compare(case: Case) -> None:
    """Check on a few fields that histill reads what OpenSlide does: the same, or within a grey level if averaged."""
    with openslide.OpenSlide(case.path) as slide, open_slide(case.path) as reader:
        for row in range(0, len(case.grid.parents), max(1, len(case.grid.parents) // 8)):
            mine = quarters(reader.read_region(*case.grid.parents[row].tolist(), SIDE, SIDE)[None])
            for tile, (x, y, width, height) in zip(mine, case.grid.children[4 * row :].tolist(), strict=False):
                region = np.asarray(slide.read_region((x, y), 0, (width, height)))
                theirs = _reduce(cv2.cvtColor(region, cv2.COLOR_RGBA2RGB), case.scale)
                if cv2.norm(tile, theirs, cv2.NORM_INF) > case.scale - 1:
                    raise SystemExit(f"{case.path.name}: tile at {x}, {y} is not what OpenSlide reads")

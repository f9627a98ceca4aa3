"""Sparse synthetic slides: whole pyramids of up to 150,000 × 100,000 px in a file of a few MB, written in a second.

A BigTIFF may point many tiles at the same bytes. The slide is a layout of cells, one cell a tile of level 0; a cell is
glass or one of 16 stained textures, and equal tiles are stored once. Every level is drawn from the same layout, so what
is tissue is known exactly, and the work of decoding is that of a real slide.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CELL = 256  # pixels a side of a tile, and of a cell at level 0
GLASS, MARK = 16, 17  # cells of a layout; below are textures
_GLASS_GREY = 243
_LONG, _SHORT, _TEXT, _LONG8 = 4, 3, 2, 16
_FORMAT = {_LONG: "u4", _SHORT: "u2", _LONG8: "u8"}


class Sparse(NamedTuple):
    """A written slide.

    Attributes
    ----------
    path
        The file.
    dimensions
        (width, height) of level 0 in pixels.
    cells
        bool [rows, columns]: tissue, one value for each 256 px of level 0; the last row and column may reach beyond
        the slide.
    """

    path: Path
    dimensions: tuple[int, int]
    cells: np.ndarray

    def truth(self, height: int, width: int) -> np.ndarray:
        """Tissue as bool [height, width] over the whole slide: the cell under each pixel's centre."""
        x = (np.arange(width) + 0.5) * self.dimensions[0] / width
        y = (np.arange(height) + 0.5) * self.dimensions[1] / height
        return self.cells[np.ix_((y // CELL).astype(int), (x // CELL).astype(int))]


def write_sparse(
    path: Path,
    dimensions: tuple[int, int],
    *,
    mpp: float = 0.25,
    downsamples: Sequence[int] = (1, 4, 16),
    seed: int = 0,
    blobs: int = 4,
    marks: Sequence[tuple[int, int]] = (),
) -> Sparse:
    """Write a tiled JPEG BigTIFF with Aperio's description, 40x.

    Parameters
    ----------
    dimensions
        (width, height) of level 0 in pixels.
    downsamples
        Levels, 1 first; each a power of two up to 64. Sizes are rounded down, as scanners do.
    blobs
        Pieces of tissue, each with holes.
    marks
        (column, row) of cells that hold `mark()` in place of glass or tissue.
    """
    columns, rows = -(-dimensions[0] // CELL), -(-dimensions[1] // CELL)
    cells = tissue_cells(rows, columns, seed=seed, blobs=blobs)
    layout = np.where(cells, _texture_index(rows, columns), GLASS).astype(np.uint8)
    for column, row in marks:
        layout[row, column] = MARK
    pictures = _cell_pictures(seed, mpp)
    with open(path, "wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link = 8
        for downsample in downsamples:
            size = max(1, dimensions[0] // downsample), max(1, dimensions[1] // downsample)
            offsets, counts = _write_tiles(file, layout, pictures, downsample, size)
            about = f"({CELL}x{CELL})" + (f" -> {size[0]}x{size[1]}" if downsample > 1 else "")
            about = _description(dimensions, mpp, about)
            link = _write_directory(file, link, _tiled_tags(size, offsets, counts, about))
            if downsample == 1:  # readers of Aperio's files expect the thumbnail second
                link = _write_directory(file, link, _thumbnail_tags(file, layout, pictures, dimensions, mpp))
    return Sparse(path, dimensions, cells)


def tissue_cells(rows: int, columns: int, *, seed: int, blobs: int) -> np.ndarray:
    """Random pieces of tissue with ragged outlines and holes, bool [rows, columns]; no piece or hole of one cell."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    across = int(np.ceil(np.sqrt(blobs)))
    down = -(-blobs // across)
    inside = np.zeros((rows, columns), bool)
    for index in range(blobs):
        centre = (index % across + 0.5) / across * columns, (index // across + 0.5) / down * rows
        radii = random.uniform(0.33, 0.46, 2) * (columns / across, rows / down)
        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        inside |= distance + 0.25 * _smooth(random, rows, columns, 5 * across) < 0.9
    mask = (inside & (_smooth(random, rows, columns, 9 * across) < 1.4)).astype(np.uint8)
    kernel = np.ones((2, 2), np.uint8)
    return cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel) > 0


def mark() -> np.ndarray:
    """The picture of a marked cell, uint8 [256, 256, 3]: red counts columns, green rows, blue both from the far end."""
    ramp = np.arange(CELL, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return np.stack([red, green, 255 - (red // 2 + green // 2)], axis=2).astype(np.uint8)


def _smooth(random: np.random.Generator, rows: int, columns: int, nodes: int) -> np.ndarray:
    noise = random.standard_normal((max(2, round(nodes * rows / max(rows, columns))), nodes)).astype(np.float32)
    return cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)


def _texture_index(rows: int, columns: int) -> np.ndarray:
    """Textures repeat every 4 × 4 cells, so that tiles of coarse levels repeat as well."""
    return np.add.outer(np.arange(rows) % 4 * 4, np.arange(columns) % 4)


def _cell_pictures(seed: int, mpp: float) -> np.ndarray:
    """uint8 [18, 256, 256, 3]: textures of haematoxylin and eosin, glass, and the mark."""
    random = np.random.default_rng([seed, 1])
    pictures = np.empty((18, CELL, CELL, 3), np.uint8)
    for index in range(GLASS):
        # Fibres: noise stretched along one axis; nuclei: dark discs of 5 to 9 µm, their number by texture.
        fibres = cv2.resize(random.standard_normal((CELL // 4, 8)).astype(np.float32), (CELL, CELL))
        picture = np.array([226, 168, 200], np.float32) + fibres[..., None] * (9, 16, 10)
        for _ in range(random.poisson(3 + 2 * (index % 4)) * max(1, round((mpp / 0.25) ** 2))):
            axes = [int(radius) for radius in random.uniform(2.5, 4.5, 2) / mpp]
            at = random.integers(0, CELL, 2).tolist()
            cv2.ellipse(picture, at, axes, float(random.uniform(0, 180)), 0, 360, (104, 74, 146), -1, cv2.LINE_AA)
        pictures[index] = np.clip(picture + random.normal(0, 4, picture.shape), 0, 255)
    pictures[GLASS] = np.clip(_GLASS_GREY + random.normal(0, 1.5, (CELL, CELL, 1)), 0, 255)
    pictures[MARK] = mark()
    return pictures


def _write_tiles(file, layout, pictures, downsample, size) -> tuple[list[int], list[int]]:
    """Offsets and byte counts of a level's tiles, row-major; equal tiles are written once."""
    side = CELL // downsample
    small = np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pictures])
    across, down = -(-size[0] // CELL), -(-size[1] // CELL)
    padded = np.full((max(down * downsample, layout.shape[0]), max(across * downsample, layout.shape[1])), GLASS)
    padded[: layout.shape[0], : layout.shape[1]] = layout
    blocks = padded[: down * downsample, : across * downsample].astype(np.uint8)
    blocks = blocks.reshape(down, downsample, across, downsample).swapaxes(1, 2)
    written: dict[bytes, tuple[int, int]] = {}
    places = []
    for block in blocks.reshape(-1, downsample, downsample):
        key = block.tobytes()
        if key not in written:
            picture = small[block].swapaxes(1, 2).reshape(CELL, CELL, 3)
            # The mark is compared pixel by pixel; elsewhere quality is what scanners use.
            quality = 100 if MARK in block else 80
            data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            written[key] = file.tell(), len(data)
            file.write(data)
        places.append(written[key])
    offsets, counts = zip(*places, strict=True)
    return list(offsets), list(counts)


def _description(dimensions: tuple[int, int], mpp: float, what: str) -> bytes:
    text = f"Aperio Image Library v12.0.15\r\n{dimensions[0]}x{dimensions[1]} [0,0 {dimensions[0]}x{dimensions[1]}] "
    return (text + f"{what} JPEG/RGB Q=80|AppMag = 40|MPP = {mpp:.6g}").encode() + b"\0"


def _tiled_tags(size, offsets, counts, about) -> list[tuple[int, int, Sequence]]:
    return [
        *_picture_tags(size, about),
        (322, _LONG, [CELL]),
        (323, _LONG, [CELL]),
        (324, _LONG8, offsets),
        (325, _LONG, counts),
        (530, _SHORT, [2, 2]),
    ]


def _thumbnail_tags(file, layout, pictures, dimensions, mpp) -> list[tuple[int, int, Sequence]]:
    """Write a picture of one pixel a cell, and return its directory."""
    picture = np.ascontiguousarray(pictures.mean((1, 2)).astype(np.uint8)[layout])
    data = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
    place, size = file.tell(), (layout.shape[1], layout.shape[0])
    file.write(data)
    about = _description(dimensions, mpp, f"-> {size[0]}x{size[1]} -")
    strip = [(273, _LONG8, [place]), (278, _LONG, [size[1]]), (279, _LONG, [len(data)]), (530, _SHORT, [2, 2])]
    return sorted([*_picture_tags(size, about), *strip])


def _picture_tags(size: tuple[int, int], about: bytes) -> list[tuple[int, int, Sequence]]:
    return [
        (254, _LONG, [0]),  # as Aperio does: its coarse levels are not marked as reduced
        (256, _LONG, [size[0]]),
        (257, _LONG, [size[1]]),
        (258, _SHORT, [8, 8, 8]),
        (259, _SHORT, [7]),  # JPEG
        (262, _SHORT, [6]),  # YCbCr
        (270, _TEXT, about),
        (277, _SHORT, [3]),
        (284, _SHORT, [1]),
    ]


def _write_directory(file, link: int, tags: list[tuple[int, int, Sequence]]) -> int:
    """Write an image directory, have the one before point at it, and return where its own pointer lies."""
    entries = []
    for tag, kind, values in tags:
        data = values if kind == _TEXT else np.array(values, f"<{_FORMAT[kind]}").tobytes()
        if len(data) > 8:
            file.write(b"\0" * (-file.tell() % 8))
            place = struct.pack("<Q", file.tell())
            file.write(data)
        else:
            place = data.ljust(8, b"\0")
        entries.append(struct.pack("<HHQ", tag, kind, len(values)) + place)
    file.write(b"\0" * (-file.tell() % 8))
    start = file.tell()
    file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
    end = file.tell()
    file.seek(link)
    file.write(struct.pack("<Q", start))
    file.seek(end)
    return end - 8

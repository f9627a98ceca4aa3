"""The synthetic scan of the feature benchmarks: a pyramid of JPEG tiles, each with bytes of its own.

`tests/slides/sparse.py` points many tiles at the same few bytes, which suits tests and would flatter decoders and
caches here. Tiles are cut at random places out of a painted canvas; in tissue they take about 12 kB each at 4:2:2 and
quality 80, as those of scanners do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from histill.demo.slide_file import drop_tags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "slides"))
from sparse import tissue_cells

TILE = 256
CANVAS = 2048
LEVELS = (4, 16)
_STAIN = {"fibre": (9, 16, 10), "cytoplasm": (226, 168, 200), "nucleus": (104, 74, 146)}  # RGB; the first a contrast
_NUCLEI = 6  # in the area of a tile
_GRAIN = 6.0  # grey levels
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
_RESOLUTION_TAGS = (282, 283, 296)  # tifffile writes 1/1, which some readers take for a resolution


def write_slide(path: Path, dimensions: tuple[int, int], *, mpp: float, seed: int = 0) -> np.ndarray:
    """Write a TIFF with the pages and the description of an Aperio scan: level 0, a thumbnail, levels 4 and 16.

    Parameters
    ----------
    dimensions
        (width, height) of level 0 in pixels.
    mpp
        µm per pixel at level 0. The same pixels whatever it is.

    Returns
    -------
    bool [rows, columns]: tissue, one value for each tile of level 0.
    """
    width, height = dimensions
    rows, columns = -(-height // TILE), -(-width // TILE)
    cells = tissue_cells(rows, columns, seed=seed, blobs=4)
    quarter = np.empty((height // 4, width // 4, 3), np.uint8)
    about = f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] (256x256)"
    optics = f"JPEG/RGB Q=80|AppMag = {round(10 / mpp)}|MPP = {mpp:.6g}"
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        _write_level(tiff, dimensions, _strips(cells, dimensions, quarter, seed), f"{about} {optics}")
        small = cv2.resize(quarter, (768, round(768 * height / width)), interpolation=cv2.INTER_AREA)
        text = f"{about} -> {small.shape[1]}x{small.shape[0]} - |"
        tiff.write(small, photometric="rgb", compression="jpeg", rowsperstrip=16, description=text, metadata=None)
        for factor in LEVELS:
            size = width // factor, height // factor
            level = quarter if factor == 4 else cv2.resize(quarter, size, interpolation=cv2.INTER_AREA)
            strips = (level[top : top + TILE] for top in range(0, size[1], TILE))
            _write_level(tiff, size, strips, f"{about} -> {size[0]}x{size[1]} {optics}")
    drop_tags(path, _RESOLUTION_TAGS)
    return cells


def _write_level(
    tiff: tifffile.TiffWriter, size: tuple[int, int], strips: Iterator[np.ndarray], description: str
) -> None:
    tiff.write(
        (tile for strip in strips for tile in _encoded(strip)),
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="ycbcr",
        subsampling=(2, 1),
        compression="jpeg",
        description=description,
        metadata=None,
    )


def _encoded(strip: np.ndarray) -> Iterator[bytes]:
    """JPEG tiles of a row of them; what is missing at the slide's edges is filled with its last pixels."""
    right, bottom = -strip.shape[1] % TILE, TILE - strip.shape[0]
    strip = cv2.copyMakeBorder(strip, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    for left in range(0, strip.shape[1], TILE):
        yield cv2.imencode(".jpg", strip[:, left : left + TILE, ::-1], _JPEG)[1].tobytes()


def _strips(cells: np.ndarray, dimensions: tuple[int, int], quarter: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Rows of tiles of level 0, uint8 [256 or less, width, 3]; fills `quarter`, the level at a fourth of its scale."""
    random = np.random.default_rng([seed, 1])
    tissue, glass = _tissue(random), _glass(random)
    for row, line in enumerate(cells):
        strip = np.empty((TILE, len(line) * TILE, 3), np.uint8)
        for column, is_tissue in enumerate(line):
            y, x = random.integers(0, CANVAS - TILE, 2)
            canvas = tissue if is_tissue else glass
            strip[:, column * TILE : (column + 1) * TILE] = canvas[y : y + TILE, x : x + TILE]
        strip = strip[: dimensions[1] - row * TILE, : dimensions[0]]
        part = quarter[row * TILE // 4 : (row + 1) * TILE // 4]
        whole = np.ascontiguousarray(strip[: 4 * part.shape[0], : 4 * part.shape[1]])
        part[...] = cv2.resize(whole, part.shape[1::-1], interpolation=cv2.INTER_AREA)
        yield strip


def _tissue(random: np.random.Generator) -> np.ndarray:
    """Eosin fibres of uneven strength, haematoxylin nuclei with chromatin, grain of a camera; uint8 [2048, 2048, 3]."""
    shape = CANVAS, CANVAS
    fibres = cv2.resize(random.standard_normal((CANVAS // 4, CANVAS // 32)).astype(np.float32), shape)
    patches = cv2.resize(random.standard_normal((CANVAS // 64, CANVAS // 64)).astype(np.float32), shape)
    picture = np.array(_STAIN["cytoplasm"], np.float32) + (fibres + patches)[..., None] * _STAIN["fibre"]
    nuclei = np.zeros(shape, np.uint8)
    for _ in range(_NUCLEI * (CANVAS // TILE) ** 2):
        at, axes = random.integers(0, CANVAS, 2).tolist(), random.uniform(9, 18, 2).astype(int).tolist()
        cv2.ellipse(nuclei, at, axes, float(random.uniform(0, 180)), 0, 360, 255, cv2.FILLED, cv2.LINE_AA)
    cover = cv2.GaussianBlur(nuclei, (0, 0), 1.0)[..., None] / np.float32(255)
    chromatin = cv2.resize(random.normal(0, 14, (CANVAS // 3, CANVAS // 3)).astype(np.float32), shape)[..., None]
    picture += (np.array(_STAIN["nucleus"], np.float32) + chromatin - picture) * cover
    picture += cv2.GaussianBlur(random.normal(0, 2 * _GRAIN, (*shape, 3)).astype(np.float32), (0, 0), 0.6)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _glass(random: np.random.Generator) -> np.ndarray:
    return np.clip(random.normal(243, 1.5, (CANVAS, CANVAS, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)

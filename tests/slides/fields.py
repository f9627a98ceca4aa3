"""Synthetic stained fields by Beer-Lambert's law, what can lie on them, and a reader of arrays."""

from __future__ import annotations

import cv2
import numpy as np

from histill.slides import colour, detail, quality
from histill.slides.grid import Grid, make_grid
from histill.slides.readers import Level

MPP = 0.5
GLASS = 245.0
HAEMATOXYLIN, EOSIN = np.array([0.24, 0.31, 0.18]), np.array([0.05, 0.19, 0.11])  # density (log10) of a full layer
INKS = {"red": (215, 35, 45), "green": (20, 140, 70), "blue": (30, 60, 190), "black": (30, 28, 33)}


class ArrayReader:
    """A slide in memory, uint8 RGB [H, W, 3]."""

    def __init__(self, picture: np.ndarray):
        self.picture = np.ascontiguousarray(picture)
        self.dimensions = picture.shape[1], picture.shape[0]
        self.levels = [Level(*self.dimensions, 1.0)]

    def level_for(self, x, y):
        return self.levels[0]

    def read_region(self, x, y, width, height, out_width, out_height):
        part = self.picture[y : y + height, x : x + width]
        return cv2.resize(part, (out_width, out_height), interpolation=cv2.INTER_AREA)


def tissue(height: int, width: int, seed: int = 0, *, nuclei: float = 1.0) -> np.ndarray:
    """Density of sharp tissue at 0.5 µm per pixel, float64 [H, W, 3]: fibrous eosin and round nuclei of 7 µm."""
    random = np.random.default_rng(seed)
    fibres = cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), sigmaX=8, sigmaY=1.5)
    eosin = np.clip(1 + 0.25 * fibres / fibres.std(), 0.2, None)
    nucleus = np.zeros((height, width), np.float32)
    for x, y in random.integers(0, (width, height), (int(nuclei * height * width / 900), 2)).tolist():
        cv2.circle(nucleus, (x, y), 7, float(random.uniform(0.8, 1.6)), -1, cv2.LINE_AA)
    nucleus = cv2.GaussianBlur(nucleus, (0, 0), 0.8)
    eosin *= 1 - 0.7 * np.minimum(nucleus, 1)  # a nucleus takes the place of cytoplasm
    return eosin[..., None] * EOSIN + nucleus[..., None] * HAEMATOXYLIN


def render(density: np.ndarray, seed: int = 0) -> np.ndarray:
    """Density to uint8 RGB with the noise of a camera."""
    noise = np.random.default_rng(seed).normal(0, 1.5, density.shape)
    return np.clip(np.rint(GLASS * 10.0**-density + noise), 0, 255).astype(np.uint8)


def stroke(shape: tuple[int, ...], points: list[tuple[int, int]], width: int) -> np.ndarray:
    """A line, share of cover [H, W, 1]."""
    line = np.zeros(shape[:2], np.uint8)
    cv2.polylines(line, [np.array(points, np.int32)], False, 255, width, cv2.LINE_AA)
    return line[..., None] / 255


def ink(density: np.ndarray, name: str, points: list[tuple[int, int]], width: int) -> np.ndarray:
    """Density under a stroke of a felt pen."""
    own = -np.log10((np.array(INKS[name]) + 1) / GLASS)
    return density + stroke(density.shape, points, width) * own


def folded(density: np.ndarray, points: list[tuple[int, int]], width: int) -> np.ndarray:
    """Density of tissue that lies double along a line: the second layer is the tissue beside it."""
    return density + stroke(density.shape, points, width) * np.roll(density, (width, width), (0, 1))


def blood(density: np.ndarray, box: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
    """Density with a lake of erythrocytes in the box (left, top, right, bottom): packed discs of 7 µm, gaps between."""
    random = np.random.default_rng(seed)
    left, top, right, bottom = box
    cells = np.zeros(density.shape[:2], np.float32)
    for y in range(top, bottom, 14):
        for x in range(left, right, 14):
            dx, dy = random.integers(-2, 3, 2)
            cv2.circle(cells, (int(x + dx), int(y + dy)), 6, float(random.uniform(0.7, 1.3)), -1, cv2.LINE_AA)
    lake = density.copy()
    lake[top:bottom, left:right] = 0
    return lake + cells[..., None] * np.array([0.12, 0.75, 0.62])


def judge(picture: np.ndarray, mpp: float = MPP, size: int | None = None) -> dict[str, np.ndarray]:
    """Flags of the 10x tiles of a picture; without `size` the whole picture is one tile."""
    reader = ArrayReader(picture)
    width, height = reader.dimensions
    out = max(1, round(width * mpp / 8)), max(1, round(height * mpp / 8))
    overview = reader.read_region(0, 0, width, height, *out)
    if size is None:
        halves = [(i * (width // 2), j * (height // 2), width // 2, height // 2) for j in (0, 1) for i in (0, 1)]
        grid = Grid(np.array([[0, 0, width, height]]), np.array(halves))
    else:
        grid = make_grid(reader.dimensions, (mpp, mpp), size)
    rows = np.arange(len(grid.parents))
    glass = colour.glass_colour(overview)
    fine = detail.measure(reader, (mpp, mpp), grid, rows, glass)
    flags = quality.flags_of(overview, reader.dimensions, (mpp, mpp), grid, fine, glass)
    return {name: values[: len(rows)] for name, values in flags.items()}


def raised(picture: np.ndarray, mpp: float = MPP) -> set[str]:
    """Flags of a picture that is one tile, the pen with its colour."""
    flags = judge(picture, mpp)
    names = {flag for flag in quality.FLAGS if flags[flag][0]}
    return {f"pen {flags['pen_colour'][0]}" if name == "pen" else name for name in names}

"""A painter of overviews: what lies on a glass slide, with the exact mask of its tissue. Seeded, at any resolution.

Light is `glass × 10^-density`, density a mixture of stains (vectors of Ruifrok and Johnston 2001) whose amounts are
smooth noise at the scale of cells and of tissue; then the scanner's blur, its noise, and JPEG. Sizes are in µm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

WIDTH_UM, HEIGHT_UM = 5200, 4000
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
INKS = {"blue": (1.1, 0.62, 0.12), "green": (1.0, 0.35, 0.75), "red": (0.06, 0.85, 0.72), "black": (1.3, 1.3, 1.25)}


class Painted(NamedTuple):
    """Overview (uint8 [H, W, 3]) and where its tissue is (bool [H, W])."""

    rgb: np.ndarray
    truth: np.ndarray


class Scene:
    """A slide being painted: density and truth grow, `lamp` is the light without a slide, `fill` paints over all."""

    def __init__(self, seed: int, mpp: float):
        self.random, self.mpp = np.random.default_rng(seed), mpp
        self.shape = round(HEIGHT_UM / mpp), round(WIDTH_UM / mpp)
        self.density = np.zeros((*self.shape, 3), np.float32)
        self.truth = np.zeros(self.shape, bool)
        self.lamp = np.full((*self.shape, 3), self.random.integers(236, 248), np.float32)
        self.fill: list[tuple[np.ndarray, tuple[int, int, int]]] = []
        self.noise, self.quality = 1.5, 85

    def px(self, um: float) -> int:
        return max(1, round(um / self.mpp))

    def waves(self, um: float) -> np.ndarray:
        """Smooth noise of this scale, mean 0 and standard deviation 1."""
        step = max(1.0, um / self.mpp / 3)
        coarse = self.random.normal(size=[int(side / step) + 4 for side in self.shape]).astype(np.float32)
        coarse = cv2.GaussianBlur(coarse, (0, 0), max(um / self.mpp / step, 0.3))
        full = cv2.resize(coarse, self.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return (full - full.mean()) / full.std()

    def at(self, x: float, y: float, radius: float, *, rough: float = 0.25) -> np.ndarray:
        """An uneven disk around a point (shares of width and height), bool."""
        yy, xx = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float32) * self.mpp
        away = np.hypot(xx - x * WIDTH_UM, yy - y * HEIGHT_UM) / radius
        return away < 1 + rough * np.clip(self.waves(350), -2, 2) / 2 + 0.04 * self.waves(60)

    def stain(self, where: np.ndarray, amounts: dict, strength: float = 1.0, *, texture: float = 1.0) -> None:
        """Tissue: stain vector -> mean density, uneven at the scale of cells and of tissue."""
        for vector, mean in amounts.items():
            uneven = np.exp(texture * (0.30 * self.waves(8) + 0.25 * self.waves(120)))
            self.density[where] += (strength * mean * uneven[where])[:, None] * np.array(vector, np.float32)
        self.truth |= where

    def sections(self, strength: float = 1.0, amounts: dict | None = None, **options: float) -> None:
        """Two pieces of H&E (or `amounts`)."""
        amounts = amounts or {HAEMATOXYLIN: 0.14, EOSIN: 0.20}
        for x, y, radius in ((0.30, 0.5, 950), (0.72, 0.42, 750)):
            self.stain(self.at(x, y, radius), amounts, strength, **options)

    def add(self, where: np.ndarray, density: tuple[float, float, float] | float) -> None:
        self.density[where] += np.array(density, np.float32)

    def line(self, start: tuple[float, float], end: tuple[float, float], um: float) -> np.ndarray:
        points = [(round(x * self.shape[1]), round(y * self.shape[0])) for x, y in (start, end)]
        return cv2.line(np.zeros(self.shape, np.uint8), *points, 1, self.px(um)) > 0

    def ring(self, x: float, y: float, radius: float, um: float) -> np.ndarray:
        centre = round(x * self.shape[1]), round(y * self.shape[0])
        return cv2.circle(np.zeros(self.shape, np.uint8), centre, self.px(radius), 1, self.px(um)) > 0

    def ink(self, where: np.ndarray, colour: str, opacity: float = 1.0) -> None:
        """Marker: what lies below counts as ink, not as tissue."""
        uneven = np.clip(1 + 0.2 * self.waves(60), 0.5, 1.5)
        self.density[where] += (opacity * uneven[where])[:, None] * np.array(INKS[colour], np.float32)
        self.truth &= ~where

    def painted(self) -> Painted:
        light = cv2.GaussianBlur(self.lamp * 10**-self.density, (0, 0), max(3 / self.mpp, 0.3))
        light += self.random.normal(scale=self.noise, size=light.shape)
        rgb = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        done, code = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        assert done
        rgb = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
        for where, colour in self.fill:
            rgb[where] = colour
            self.truth &= ~where
        return Painted(rgb, self.truth)


def paint(condition: Callable[[Scene], None], seed: int = 0, mpp: float = 8.0) -> Painted:
    """A slide of 5.2 × 4 mm in this condition."""
    scene = Scene(seed, mpp)
    condition(scene)
    return scene.painted()

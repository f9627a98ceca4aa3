"""Small synthetic slides: pyramidal TIFFs of stained ellipses on glass."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from histill.config import complete

GLASS = 243


@pytest.fixture
def config():
    return complete({"results": "results", "cohort": {}})


@pytest.fixture(scope="session")
def stained():
    """Picture [height, width, 3] at 0.5 µm per pixel: glass with one ellipse of nuclei and stroma."""

    def make(height: int, width: int, *, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        picture = np.full((height, width, 3), GLASS, np.uint8)
        inside = np.zeros((height, width), np.uint8)
        cv2.ellipse(inside, (width // 2, height // 2), (int(width * 0.4), int(height * 0.4)), 0, 0, 360, 1, -1)
        picture[inside > 0] = (222, 160, 196)
        for x, y in random.integers(0, (width, height), (height * width // 900, 2)).tolist():
            if inside[y, x]:
                cv2.circle(picture, (x, y), 6, (96, 62, 140), -1)
        noise = random.integers(-3, 4, picture.shape)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def write_slide():
    """Write a tiled pyramidal TIFF that OpenSlide reads; `mpp` (x, y) goes to its resolution tags."""

    def write(
        path: Path,
        picture: np.ndarray,
        mpp: tuple[float, float] | None = (0.5, 0.5),
        levels: int = 3,
        description: str | None = None,
    ) -> Path:
        resolution = {} if mpp is None else {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": 3}
        with tifffile.TiffWriter(path) as file:
            for level in range(levels):
                size = max(1, picture.shape[1] >> level), max(1, picture.shape[0] >> level)
                file.write(
                    cv2.resize(picture, size, interpolation=cv2.INTER_AREA),
                    tile=(256, 256),
                    photometric="rgb",
                    compression="zlib",
                    subfiletype=1 if level else 0,
                    **({} if description is None or level else {"description": description, "metadata": None}),
                    **resolution,
                )
        return path

    return write

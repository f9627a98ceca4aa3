"""Stain statistics of a slide: stain vectors by Macenko's method, and the distribution of density and colour.

Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009; Reinhard et al., Color
transfer between images, IEEE CG&A 2001; both through torchstain's numpy backend, fitted on one sample of the whole
slide. Optical density here is the natural logarithm, as in those papers and as the published references assume.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WHITE = 240.0  # incident light of the published reference; slides are brought to it by their own glass
REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])  # haematoxylin, eosin
REFERENCE_MAX = np.array([1.9705, 1.0308])
MIN_PIXELS = 500  # stained ones; the extreme 1 % are then 5 pixels
MIN_ANGLE = 8.0  # degrees between the two vectors; the reference has 22
UNUSUAL_ANGLE = 15.0  # degrees from the reference vector
PALE = 0.35  # 99th percentile of either concentration over the reference's
LEAST_STAIN = 0.1  # 99th percentile of a concentration below which there is nothing to scale
_BETA = 0.15  # density from which Macenko's method counts a pixel as stained, in every channel
_STAINED = 0.10  # density in any channel
_LIMIT = 100_000  # pixels of a fit


def balance(rgb: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Colours as under white light of 240: each channel over the slide's glass. uint8, the shape of `rgb`."""
    table = np.rint(np.clip(np.arange(256)[:, None] * (WHITE / np.maximum(glass, 1.0)), 0, 255)).astype(np.uint8)
    return np.stack([table[rgb[..., channel], channel] for channel in range(3)], axis=-1)


def statistics(pixels: np.ndarray, glass: np.ndarray) -> dict[str, Any]:
    """Stain statistics, ready for JSON.

    Parameters
    ----------
    pixels
        uint8 RGB [n, 3], a regular sample of the slide's kept tiles at about 2 µm per pixel.
    glass
        Colour of the slide's glass [3].

    Returns
    -------
    `pixels` (stained ones), `glass`, `density` and `lab` (each `mean` and `sd`, of stained pixels; None without any),
    `macenko` (`haematoxylin` and `eosin`, unit vectors of density in R, G, B; `max_concentration`, their 99th
    percentiles) or None, `reason` why it is None, and `unusual`, what is out of the ordinary.
    """
    pixels = balance(pixels[:: max(1, len(pixels) // _LIMIT)], np.asarray(glass, np.float64))
    density = np.maximum(-np.log((pixels.astype(np.float64) + 1) / WHITE), 0)
    stained = (density > _STAINED).any(1)
    found: dict[str, Any] = {
        "pixels": int(stained.sum()),
        "glass": _numbers(glass, 1),
        "density": None,
        "lab": None,
        "macenko": None,
        "reason": None,
        "unusual": [],
    }
    if found["pixels"] < MIN_PIXELS:
        return found | {"reason": f"only {found['pixels']} stained pixels in the sample, {MIN_PIXELS} are needed"}
    pixels, density = pixels[stained], density[stained]
    found["density"] = {"mean": _numbers(density.mean(0)), "sd": _numbers(density.std(0))}
    found["lab"] = _lab(pixels)
    vectors, found["reason"] = _vectors(pixels, density)
    if vectors is not None:
        concentration = np.linalg.pinv(vectors.T) @ density.T
        most = np.percentile(concentration, 99, axis=1)
        if most.min() < LEAST_STAIN:
            return found | {
                "reason": f"one of the two stains is missing (99th percentiles {most[0]:.2g}, {most[1]:.2g})"
            }
        found["macenko"] = {
            "haematoxylin": _numbers(vectors[0]),
            "eosin": _numbers(vectors[1]),
            "max_concentration": _numbers(most),
        }
        found["unusual"] = _unusual(vectors, most)
    return found


def _vectors(pixels: np.ndarray, density: np.ndarray) -> tuple[np.ndarray | None, str | None]:
    """Haematoxylin and eosin as rows [2, 3], or None and why."""
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    dense = (density >= _BETA).all(1)
    if dense.sum() < MIN_PIXELS:
        return None, f"only {int(dense.sum())} pixels are stained in every channel, {MIN_PIXELS} are needed"
    if np.linalg.matrix_rank(np.cov(density[dense].T), tol=1e-8) < 2:
        return None, "the stained pixels all have the same colour"
    normalizer = NumpyMacenkoNormalizer()
    normalizer.fit(pixels[:, None, :], Io=WHITE, beta=_BETA)
    # The signs of eigenvectors are arbitrary, and with them the signs and the order of the two stains.
    vectors = normalizer.HERef.T * np.where(normalizer.HERef.sum(0) < 0, -1, 1)[:, None]
    vectors = vectors[np.argsort(-vectors[:, 0])]
    if not np.isfinite(vectors).all() or vectors.min() < -0.2:
        return None, "no two stains explain the colours"
    if _angle(*vectors) < MIN_ANGLE:
        return None, f"the colours lie along one stain: the two vectors are {_angle(*vectors):.1f}° apart"
    return vectors, None


def _unusual(vectors: np.ndarray, most: np.ndarray) -> list[str]:
    names = ("haematoxylin", "eosin")
    off = [_angle(*pair) for pair in zip(vectors, REFERENCE, strict=True)]
    turned = [
        f"the colour of {name} is {angle:.0f}° from the reference"
        for name, angle in zip(names, off, strict=True)
        if angle > UNUSUAL_ANGLE
    ]
    pale = [
        f"{name} is pale: {value:.2f} of the reference"
        for name, value in zip(names, most / REFERENCE_MAX, strict=True)
        if value < PALE
    ]
    return turned + pale


def _lab(pixels: np.ndarray) -> dict[str, list[float]]:
    from torchstain.numpy.normalizers.reinhard import NumpyReinhardNormalizer

    normalizer = NumpyReinhardNormalizer()
    normalizer.fit(pixels[:, None, :])
    return {"mean": _numbers(normalizer.target_means), "sd": _numbers(normalizer.target_stds)}


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _numbers(values: Any, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in np.asarray(values).ravel()]

"""Stain normalisation before the encoder: one transform a slide, fitted on the whole slide, to a fixed target.

A fit per tile would take away what tiles of one slide differ in; a target fitted on other patients would carry them
into this one. The slide's statistics are in quality.json (`histill.slides.stain`, fitted by torchstain). torchstain's
own `normalize` fits again on whatever picture it is given, so the transform is applied here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from histill.errors import SlideError
from histill.slides import stain

# CIELAB of H&E of medium strength: the middle of eleven real fields and slides of five organs, rounded.
LAB_MEAN = np.array([60.0, 26.0, -13.0])
LAB_SD = np.array([13.0, 6.5, 5.5])
_TISSUE = 0.20  # natural density from which a pixel is tissue in full; below, Reinhard's shift fades out to glass

Normaliser = Callable[[np.ndarray], np.ndarray]


def normaliser(method: str, quality: dict[str, Any], slide: str) -> Normaliser | None:
    """The transform of a slide's pixels, uint8 RGB [..., 3] to the same shape; None for `none`.

    Parameters
    ----------
    method
        `none`, `macenko` or `reinhard`.
    quality
        Content of the slide's quality.json.
    slide
        Its name in messages.

    Raises
    ------
    SlideError
        If the slide's stain could not be fitted: left as it is, it would differ from the others by more than before.
    """
    if method == "none":
        return None
    found = quality.get("stain") or {}
    fit = found.get({"macenko": "macenko", "reinhard": "lab"}[method])
    if fit is None:
        raise SlideError(
            f"slide {slide}: its stain cannot be normalised: {found.get('reason') or 'it was not measured'}",
            mend="leave the slide out, or set features.stain_normalisation: none",
        )
    glass = np.array(found["glass"])
    return Macenko(fit, glass) if method == "macenko" else Reinhard(fit, glass)


def target(method: str) -> dict[str, Any]:
    """What slides are brought to, as it is recorded in the store."""
    if method == "macenko":
        return {"stain_vectors": stain.REFERENCE.tolist(), "max_concentration": stain.REFERENCE_MAX.tolist()}
    return {"lab_mean": LAB_MEAN.tolist(), "lab_sd": LAB_SD.tolist()} if method == "reinhard" else {}


class Macenko:
    """Stain vectors and 99th percentiles of concentration to those of the published reference.

    Linear in optical density: unmix, scale each stain, mix with the reference's vectors. What lies outside the plane of
    the two stains is lost, as in the published method.

    Parameters
    ----------
    fit
        `macenko` of `histill.slides.stain.statistics`.
    glass
        Colour of the slide's glass [3].
    """

    def __init__(self, fit: dict[str, Any], glass: np.ndarray):
        vectors = np.array([fit["haematoxylin"], fit["eosin"]])  # [2, 3]
        scale = stain.REFERENCE_MAX / np.array(fit["max_concentration"])
        self._matrix = (np.linalg.pinv(vectors) @ np.diag(scale) @ stain.REFERENCE).T.astype(np.float32)
        grey = np.arange(256)[:, None] * (stain.WHITE / np.maximum(glass, 1.0))
        self._density = np.maximum(-np.log((grey + 1) / stain.WHITE), 0).astype(np.float32)  # [256, 3]

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        flat = rgb.reshape(1, -1, 3)
        density = np.stack([cv2.LUT(flat[..., i], self._density[:, i]) for i in range(3)], axis=-1)
        light = cv2.exp(-cv2.transform(density, self._matrix))
        return np.rint(np.clip(stain.WHITE * light, 0, 255)).astype(np.uint8).reshape(rgb.shape)


class Reinhard:
    """Mean and spread of the tissue's CIELAB to the target's; glass stays as it is.

    Parameters
    ----------
    fit
        `lab` of `histill.slides.stain.statistics`.
    glass
        Colour of the slide's glass [3].
    """

    def __init__(self, fit: dict[str, Any], glass: np.ndarray):
        mean, spread = np.array(fit["mean"]), np.maximum(np.array(fit["sd"]), 1.0)
        self._scale = (LAB_SD / spread).astype(np.float32)
        self._shift = (LAB_MEAN - mean * LAB_SD / spread).astype(np.float32)
        self._glass = glass

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        flat = stain.balance(rgb.reshape(1, -1, 3), self._glass)
        weight = -np.log((flat.min(2, keepdims=True).astype(np.float32) + 1) / stain.WHITE) / _TISSUE
        lab = cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        moved = cv2.cvtColor(lab * self._scale + self._shift, cv2.COLOR_LAB2RGB) * 255
        mixed = flat + (moved - flat) * np.clip(weight, 0, 1)
        return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8).reshape(rgb.shape)

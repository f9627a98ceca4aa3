"""Colour profiles: from the scanner's colours to sRGB, with LittleCMS by Pillow.

Relative colorimetric with black-point compensation: the scanner's white stays white, so glass does, and what sRGB can
show keeps its colour. Pixels are turned after resampling. The coarser levels of a file were averaged in the scanner's
colours, so this order gives the same answer from whatever level was read; and there are fewer pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError

BROKEN = b"\0"  # stands for a profile that the library refuses to hand over


def of_tag(tag: Any) -> bytes | None:
    """The profile in a TIFF's tag (a `TiffTag`, or None), which may be of any type."""
    if tag is None:
        return None
    try:
        return bytes(tag.value)
    except (TypeError, ValueError):  # text, or numbers that are no bytes
        return BROKEN


def describe(profile: bytes) -> str:
    """The profile's own name, or that it cannot be read."""
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "unreadable"


def transform(profile: bytes, path: Path) -> Any:
    """Transform from a profile to sRGB.

    Raises
    ------
    SlideError
        If the profile is broken, or is not one of RGB pixels.
    """
    from PIL import ImageCms

    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise SlideError(
            f"{path}: its ICC profile cannot be used: {error}",
            mend="set slides.icc: false, which leaves the colours as they are stored",
        ) from None


def apply(built: Any, pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] in sRGB."""
    from PIL import Image, ImageCms

    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), built))

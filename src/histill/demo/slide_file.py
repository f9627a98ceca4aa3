"""Write pixels as a pyramidal tiled JPEG TIFF that readers take for an Aperio slide.

The order of pages is Aperio's: level 0, a thumbnail in strips, then the lower levels. Nothing in the file depends on
time or place, so the same pixels give the same bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

TILE = (256, 256)
QUALITY = 80
LEVELS = (4, 16)
THUMBNAIL_PX = 512
_RESOLUTION_TAGS = (282, 283, 296)  # XResolution, YResolution, ResolutionUnit


def write_slide(path: Path, image: np.ndarray, slide_id: str, *, mpp: float | None) -> None:
    """Write a slide.

    Parameters
    ----------
    path
        A file to write; its folder exists.
    image
        RGB uint8 [height, width, 3].
    slide_id
        Stands in the description, with the word "synthetic".
    mpp
        µm per pixel at level 0 (the objective is 20x). None writes a file that says nothing about its resolution.
    """
    import tifffile

    height, width = image.shape[:2]
    name = "Aperio Image Library format, synthetic slide of histill 1"
    optics = "" if mpp is None else f"|AppMag = 20|MPP = {mpp:.4f}"
    common = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": QUALITY},
        "software": "histill demo",
        "metadata": None,
        "maxworkers": 1,
    }
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        text = f"{name}\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q={QUALITY}{optics}"
        tiff.write(image, tile=TILE, description=f"{text}|Title = {slide_id}, synthetic", **common)
        ratio = THUMBNAIL_PX / max(width, height)
        thumbnail = _shrink(image, round(width * ratio), round(height * ratio))
        text = f"{name}\r\n{width}x{height} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - "
        tiff.write(thumbnail, rowsperstrip=16, description=text, **common)
        level = image
        for factor in LEVELS:
            level = _shrink(level, width // factor, height // factor)
            text = f"{name}\r\n{width}x{height} [0,0 {width}x{height}] (256x256) -> {level.shape[1]}x{level.shape[0]}"
            tiff.write(level, tile=TILE, description=f"{text} JPEG/RGB Q={QUALITY}", **common)
    drop_tags(path, _RESOLUTION_TAGS)


def _shrink(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def drop_tags(path: Path, tags: tuple[int, ...]) -> None:
    """Take tags out of every directory of a little-endian classic TIFF, in place.

    Scanners of this vendor write no resolution tags; `tifffile` always does (1/1, no unit), and some readers take that
    for a resolution.
    """
    with open(path, "r+b") as file:
        file.seek(4)
        (offset,) = struct.unpack("<I", file.read(4))
        while offset:
            file.seek(offset)
            (count,) = struct.unpack("<H", file.read(2))
            entries = [file.read(12) for _ in range(count)]
            following = file.read(4)
            kept = [entry for entry in entries if struct.unpack_from("<H", entry)[0] not in tags]
            file.seek(offset)
            file.write(struct.pack("<H", len(kept)) + b"".join(kept) + following)
            (offset,) = struct.unpack("<I", following)


def cut_short(path: Path, share: float = 0.45) -> None:
    """Corrupt a slide the way a broken transfer does: keep the first `share` of its bytes."""
    with open(path, "r+b") as file:
        file.truncate(int(path.stat().st_size * share))

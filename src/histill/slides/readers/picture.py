"""PNG and JPEG pictures of a region: one level, no resolution of their own.

A picture is decoded whole, so its declared size is bounded before a pixel is read. The dpi that such files state is a
printer's and is not passed on; µm per pixel comes from the slide sheet. The EXIF orientation is not applied:
coordinates stay those of the stored pixels, as annotation programs and the tissue outline count them.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers.base import Reader
from histill.slides.readers.request import Window

MAX_PIXELS = 100_000_000
_PLAIN, _CONVERTED = ("RGB", "RGBA"), {"L": "RGB", "P": "RGBA", "LA": "RGBA", "PA": "RGBA", "1": "RGB"}
_TRANSPARENT = "transparency"  # a PNG may name one colour (tRNS), which Pillow drops on the way to RGB
_MEND = "save it as PNG with 8 bits a channel, RGB or grey"
_PNG_DEPTH, _EXIF_ORIENTATION = 24, 274  # byte of a PNG; number of an EXIF tag


class PictureReader(Reader):
    """Reads PNG and JPEG with Pillow."""

    name = "picture"

    def clone(self) -> PictureReader:
        other = super().clone()
        other._handle = _Lent(self._open())
        return other

    def _new_handle(self) -> Any:
        from PIL import Image

        with warnings.catch_warnings():  # the bound here is lower than Pillow's for an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                image = Image.open(self.path, formats=("PNG", "JPEG"))
            except Image.DecompressionBombError as error:
                raise SlideError(str(error), mend=_too_large()) from None
            except Image.UnidentifiedImageError:
                raise SlideError("it is no PNG or JPEG") from None
        try:
            self._check(image)
        except BaseException:
            image.close()
            raise
        return _Picture(image)

    def _check(self, image: Any) -> None:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise SlideError(f"a picture of {width} × {height} pixels is over {MAX_PIXELS:,} pixels", mend=_too_large())
        if image.mode not in _PLAIN and image.mode not in _CONVERTED:
            raise SlideError(f"its pixels are of mode {image.mode}: neither RGB nor grey of 8 bits", mend=_MEND)
        with open(self.path, "rb") as file:
            head = file.read(_PNG_DEPTH + 1)
        if image.format == "PNG" and head[_PNG_DEPTH] == 16:  # Pillow would drop the lower half without a word
            raise SlideError("its channels have 16 bits", mend=_MEND)

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        self.vendor = handle.image.format.lower()
        self.properties = {}
        known = "exif" in handle.image.info  # else Pillow would decode a PNG to look for it behind the pixels
        turned = handle.image.getexif().get(_EXIF_ORIENTATION, 1) if known else 1
        if turned != 1:
            self.notes.append(f"its EXIF orientation {turned} is not applied: pixels are read as they are stored")
        return [handle.image.size]

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        pixels = handle.pixels()[window.top : window.bottom, window.left : window.right]
        return pixels, (window.left, window.top)

    def _profile(self, handle: Any) -> bytes | None:
        return handle.image.info.get("icc_profile")


class _Picture:
    """An open picture, decoded on first use, for all threads."""

    def __init__(self, image: Any):
        self.image = image
        self._pixels: np.ndarray | None = None
        self._decoding = threading.Lock()

    def pixels(self) -> np.ndarray:
        with self._decoding:
            if self._pixels is None:
                self.image.load()
                mode = "RGBA" if _TRANSPARENT in self.image.info else _CONVERTED.get(self.image.mode, self.image.mode)
                self._pixels = np.asarray(self.image.convert(mode))
            return self._pixels

    def close(self) -> None:
        self.image.close()
        self._pixels = None


class _Lent:
    """A picture that another reader decodes for its clone, and closes."""

    def __init__(self, picture: Any):
        self.image, self.pixels = picture.image, picture.pixels

    def close(self) -> None:
        self.pixels = None  # it may be the last reference


def _too_large() -> str:
    return "convert it to a tiled pyramidal TIFF (vips tiffsave --pyramid --tile)"

"""Decoding a tile of 8-bit RGB into memory that is there."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

from histill.slides.readers.pages import Page

_RGB, _YCBCR = 2, 6  # PhotometricInterpretation
_HORIZONTAL = 2  # Predictor
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE = 1, 5, 7, 8, 32946
_APERIO_YCBCR, _APERIO_RGB, _JPEG2000 = 33003, 33005, 34712
_LOSSLESS = (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE)
_CODESTREAM = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream, and of the sizes in it
_END_OF_IMAGE = b"\xff\xd9"


class UndecodedError(Exception):
    """A tile is unusual or damaged; the library has the word on it."""


def can_decode(page: Page) -> bool:
    """Whether tiles of a page are of a kind that `decode` knows."""
    if page.compression in _LOSSLESS:
        return page.photometric == _RGB and page.predictor in (1, _HORIZONTAL)
    if page.compression == _JPEG:
        return page.photometric in (_RGB, _YCBCR)
    return page.compression in (_APERIO_YCBCR, _APERIO_RGB, _JPEG2000)


def decode(page: Page, data: bytes, out: np.ndarray) -> None:
    """Decode a tile.

    Parameters
    ----------
    data
        Its bytes in the file.
    out
        uint8 RGB [tile height, tile width, 3]. No decoder takes memory for a picture of another size.

    Raises
    ------
    UndecodedError
        If the bytes are no whole tile of this size.
    """
    try:
        if page.compression == _JPEG:
            _jpeg(page, data, out)
        elif page.compression in _LOSSLESS:
            _lossless(page, data, out)
        else:
            _jpeg2000(page, data, out)
    except (RuntimeError, ValueError, struct.error) as error:  # RuntimeError: what those of imagecodecs derive from
        raise UndecodedError(str(error)) from None


def _jpeg(page: Page, data: bytes, out: np.ndarray) -> None:
    from imagecodecs import jpeg8_decode

    # libjpeg makes up what is missing at the end, with no more than a warning.
    if _END_OF_IMAGE not in data[-16:]:
        raise ValueError("it does not end as a JPEG picture does")
    colours = "RGB" if page.photometric == _RGB else "YCBCR"
    jpeg8_decode(data, tables=page.tables, colorspace=colours, outcolorspace="RGB", out=out)


def _lossless(page: Page, data: bytes, out: np.ndarray) -> None:
    from imagecodecs import deflate_decode, delta_decode, lzw_decode

    flat = out.reshape(-1)
    if page.compression == _NONE:
        flat[:] = np.frombuffer(data, np.uint8)  # no other length will do
    else:
        unpack = lzw_decode if page.compression == _LZW else deflate_decode
        if len(unpack(data, out=flat)) != flat.size:
            raise ValueError("it holds too few pixels")
    if page.predictor == _HORIZONTAL:
        delta_decode(out, axis=-2, out=out)


def _jpeg2000(page: Page, data: bytes, out: np.ndarray) -> None:
    from imagecodecs import jpeg2k_decode

    if data[:4] != _CODESTREAM:
        raise ValueError("it is no bare codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    samples = struct.unpack_from(">H", data, 40)[0]
    if (bottom - top, right - left, samples) != out.shape or data[42:51] != b"\x07\x01\x01" * 3:
        raise ValueError("it is not of the tile's size, of 8 bits, or its colours are subsampled")
    jpeg2k_decode(data, out=out)
    if page.compression == _APERIO_YCBCR:
        _to_rgb(out)


@cache
def _tables() -> tuple[np.ndarray, ...]:
    """What Cr adds to red, Cb and Cr to green (times 65,536), and Cb to blue: the integers of libjpeg."""
    x = np.arange(-128, 128)

    def fixed(factor: float) -> np.ndarray:
        return int(factor * 65536 + 0.5) * x

    red, blue = (fixed(1.402) + 32768) >> 16, (fixed(1.772) + 32768) >> 16
    green = -fixed(0.34414), 32768 - fixed(0.71414)
    return red.astype(np.int16), green[0].astype(np.int32), green[1].astype(np.int32), blue.astype(np.int16)


def _to_rgb(pixels: np.ndarray) -> None:
    red, green_cb, green_cr, blue = _tables()
    luma, cb, cr = pixels[..., 0].astype(np.int16), pixels[..., 1], pixels[..., 2]
    added = red[cr], (green_cb[cb] + green_cr[cr]) >> 16, blue[cb]
    for channel, value in enumerate(added):
        pixels[..., channel] = np.clip(luma + value, 0, 255)

"""Which readers there are, and which one opens a file."""

from __future__ import annotations

import stat
from pathlib import Path

from histill.errors import SlideError
from histill.slides.readers.base import Reader, reason
from histill.slides.readers.cucim import CuCimReader
from histill.slides.readers.openslide import OpenSlideReader
from histill.slides.readers.picture import PictureReader
from histill.slides.readers.protocol import SlideReader
from histill.slides.readers.tiff_check import check_tiff
from histill.slides.readers.tifffile import TiffFileReader
from histill.slides.readers.tiffslide import TiffSlideReader
from histill.slides.readers.wsidicom import WsiDicomReader
from histill.storage import is_out_of_reach, patiently

READERS: dict[str, type[Reader]] = {
    reader.name: reader
    for reader in (OpenSlideReader, TiffSlideReader, TiffFileReader, PictureReader, CuCimReader, WsiDicomReader)
}
AUTO = ("openslide", "tiffslide", "tifffile", "picture")
_MEND = "check that the file is a complete slide; convert it to a pyramidal TIFF (vips tiffsave --pyramid --tile)"


def open_slide(path: str | Path, reader: str = "auto", *, icc: bool = False, resample: str = "area") -> SlideReader:
    """Open a slide.

    Parameters
    ----------
    path
        The slide's file (of a multi-file format: its main file; of a DICOM series: any of its files).
    reader
        A key of `READERS`, or `auto`: the first of `AUTO` that opens the file and reads it well. A reader that opens
        it with a doubt (one level where the file has a pyramid, strips that it would decode for every tile) is used
        if no later one does better.
    icc
        Turn pixels to sRGB by the slide's own colour profile.
    resample
        `area` or `lanczos`.

    Raises
    ------
    SlideError
        If it is no file or a TIFF that cannot be whole (`tiff_check`); else with each reader's own reason.
    UnreachableError
        If the storage fails again and again.
    """
    path = Path(path)
    if reader not in ("auto", *READERS):
        raise ValueError(f"reader is auto or one of {', '.join(READERS)}, not {reader!r}")
    said: list[str] = []
    opened = patiently(lambda: _open(path, reader, resample), path, note=said.append)
    opened.notes += said
    if icc:
        try:
            opened.to_srgb()
        except BaseException:
            opened.close()
            raise
    return opened


def _open(path: Path, reader: str, resample: str) -> Reader:
    check_file(path)
    check_tiff(path)
    return _best(path, resample) if reader == "auto" else _only(path, reader, resample)


def _only(path: Path, name: str, resample: str) -> Reader:
    try:
        return READERS[name](path, resample=resample)
    except Exception as error:  # every library has its own errors for a file it cannot open
        if is_out_of_reach(error):
            raise
        raise _refused(path, [f"{name} says: {reason(error)}"], [error]) from None


def _best(path: Path, resample: str) -> Reader:
    said, errors = [], []
    doubted: Reader | None = None
    for name in AUTO:
        try:
            opened = READERS[name](path, resample=resample)
        except Exception as error:  # every library has its own errors for a file it cannot open
            if is_out_of_reach(error):  # another reader may do, but its pixels may be others
                raise
            said.append(f"{name} says: {reason(error)}")
            errors.append(error)
            continue
        doubt = opened.doubt()
        if doubt is None:
            opened.refusals = [f"read with {name}, since {why}" for why in said]
            if doubted is not None:
                doubted.close()
            return opened
        said.append(f"of {name}: {doubt}")
        opened.refusals = [f"read with {name}, though {doubt}"]
        if doubted is None:
            doubted = opened
        else:
            opened.close()
    if doubted is None:
        raise _refused(path, said, errors)
    return doubted


def _refused(path: Path, said: list[str], errors: list[Exception]) -> SlideError:
    mends = [error.mend for error in errors if isinstance(error, SlideError) and error.mend]
    return SlideError(f"{path}: no reader can open it: {'; '.join(said)}", mend=mends[0] if mends else _MEND)


def check_file(path: Path) -> None:
    """Refuse what cannot be a slide whatever the reader: nothing there, a folder, an empty file."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise SlideError(f"{path}: is a folder, not a slide", mend="name the slide's main file in the column path")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SlideError(f"{path}: is no regular file", mend="correct the column path")
        with open(path, "rb"):
            pass
    except OSError as error:
        if is_out_of_reach(error):
            raise
        raise SlideError(f"{path}: cannot be read: {error.strerror}", mend="correct the column path") from None
    if status.st_size == 0:
        raise SlideError(f"{path}: is empty (0 bytes)", mend="copy or download the file again")

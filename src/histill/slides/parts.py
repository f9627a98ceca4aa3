"""The files a slide consists of, and one fingerprint over all of them.

MIRAX: the folder beside the .mrxs file, with Slidedat.ini and the files it names. Hamamatsu VMS and VMU: the files that
the index names. DICOM: every file of the series in the folder. Any other slide is one file.
"""

from __future__ import annotations

import re
from pathlib import Path

from histill.errors import SlideError
from histill.provenance import digest, fingerprint
from histill.slides.dicom import series_uid

_INDEX_BYTES = 4 << 20
_MIRAX_NAMES = re.compile(r"INDEXFILE|FILE_\d+", re.IGNORECASE)
_HAMAMATSU_NEEDED = re.compile(r"ImageFile(\(\d+,\d+(,\d+)?\))?|MapFile", re.IGNORECASE)
_HAMAMATSU_MORE = re.compile(r"OptimisationFile|MacroImage", re.IGNORECASE)


def parts(path: str | Path) -> list[Path]:
    """Every file of a slide, its main file first.

    Raises
    ------
    SlideError
        If a file that the slide needs is missing, or its index cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        return [path, *_mirax(path)]
    if suffix in (".vms", ".vmu"):
        return [path, *_hamamatsu(path)]
    series = series_uid(path)
    if series is None:
        return [path]
    others = (other for other in sorted(path.parent.iterdir()) if other != path and other.is_file())
    return [path, *(other for other in others if series_uid(other) == series)]


def slide_fingerprint(path: str | Path) -> str:
    """Fingerprint of a slide with all its files; that of a single file is `histill.provenance.fingerprint`.

    A file that is added to, missing from or changed in a slide changes it; moving the slide's folder does not.
    """
    path = Path(path)
    files = parts(path)
    if len(files) == 1:
        return fingerprint(path)
    names = {part.relative_to(path.parent).as_posix(): part for part in files}
    # Of a series any file may be the one that is named, so the order does not count.
    return digest({name: fingerprint(part) for name, part in sorted(names.items())})


def _mirax(path: Path) -> list[Path]:
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise SlideError(
            f"{path}: the folder {folder} is missing", mend="copy the slide's folder beside its .mrxs file"
        )
    index = folder / "Slidedat.ini"
    names = [value for key, value in _entries(path, index) if _MIRAX_NAMES.fullmatch(key)]
    return [index, *_found(path, folder, names)]


def _hamamatsu(path: Path) -> list[Path]:
    entries = _entries(path, path)
    needed = [value for key, value in entries if _HAMAMATSU_NEEDED.fullmatch(key) and value]
    if not needed:
        raise SlideError(f"{path}: names no image file", mend="copy the slide again, with all its files")
    more = [value for key, value in entries if _HAMAMATSU_MORE.fullmatch(key) and value]
    return _found(path, path.parent, needed) + [path.parent / name for name in more if (path.parent / name).is_file()]


def _entries(path: Path, index: Path) -> list[tuple[str, str]]:
    try:
        with open(index, "rb") as file:
            text = file.read(_INDEX_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise SlideError(f"{path}: {index} cannot be read: {error.strerror}", mend="copy the slide again") from None
    pairs = (line.partition("=") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, sign, value in pairs if sign]


def _found(path: Path, folder: Path, names: list[str]) -> list[Path]:
    files = [folder / name for name in dict.fromkeys(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SlideError(
            f"{path}: files of the slide are missing in {folder}: {', '.join(missing[:3])}{more}",
            mend="copy the slide again, with all its files",
        )
    return files

"""`histill scan`: draft slides.csv from a folder of slides."""

from __future__ import annotations

import os
import re
from pathlib import Path

from histill.errors import HistillError
from histill.provenance import write_csv
from histill.slides.dicom import series_uid

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm")
COLUMNS = ("slide_id", "patient_id", "path")
_TCGA = re.compile(r"^(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?=$|[-._])", re.IGNORECASE)
_MAX_ID = 96  # leaves room for a number that makes it unique


def scan(folder: str | Path) -> list[dict[str, str]]:
    """Rows of a slide sheet for every slide below a folder.

    `slide_id` is the file's stem made safe as a file name, with a number where two would be the same (upper and lower
    case do not count). `patient_id` is the TCGA patient if the name is a TCGA barcode, else the slide id: a guess, to
    be checked. Of a DICOM series only its first file is named. PNG and JPEG files are left out: most are previews.

    Raises
    ------
    HistillError
        If there is no such folder, no slide in it, or a slide whose name a sheet cannot hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HistillError(f"{folder} is no folder", mend="name the folder that holds the slides")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    visible = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not visible:
        raise HistillError(f"{folder} holds no slide", mend=f"known file types: {', '.join(SUFFIXES)}")
    if strange := next((path for path in visible if _no_text(path)), None):
        name = os.fsencode(strange).decode("utf-8", "backslashreplace")
        raise HistillError(f"{name}: the name is no UTF-8 text, which a slide sheet is", mend="rename the file")
    rows, taken = [], set()
    for path in _one_per_series(visible):
        slide = slide_id(path, taken)
        barcode = _TCGA.match(path.stem)
        rows.append(
            {"slide_id": slide, "patient_id": barcode[1].upper() if barcode else slide, "path": path.as_posix()}
        )
    return rows


def write_sheet(rows: list[dict[str, str]], path: str | Path) -> None:
    """Write rows as a slide sheet (CSV); an existing file is never overwritten."""
    path = Path(path)
    if path.exists():
        raise HistillError(f"{path} exists already", mend="name another file with --out, or move it away")
    write_csv(path, COLUMNS, rows)


def slide_id(path: Path, taken: set[str]) -> str:
    """A slide's id: its file's stem made safe as a file name, numbered where that is `taken`, to which it is added."""
    return _unique(_safe(path.stem), taken)


def _no_text(path: Path) -> bool:
    return any(0xD800 <= ord(letter) <= 0xDFFF for letter in path.as_posix())  # how Python keeps bytes that are none


def _safe(stem: str) -> str:
    """Letters, digits, '.', '_' and '-'; a letter or digit first, no dot last."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-")[:_MAX_ID].rstrip(".")
    return text or "slide"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate.casefold())
    return candidate


def _one_per_series(paths: list[Path]) -> list[Path]:
    """Every file, but of the DICOM files of one series in a folder only the first."""
    taken, kept = set(), []
    for path in paths:
        uid = series_uid(path) if path.suffix.lower() == ".dcm" else None
        if uid is None or (path.parent, uid) not in taken:
            kept.append(path)
        taken.add((path.parent, uid))
    return kept

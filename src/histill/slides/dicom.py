"""Which series a DICOM file belongs to, from its header alone.

Part 10 files, little endian, explicit or implicit value representations (DICOM PS3.5, 7.1; PS3.10, 7.1). Elements come
in the order of their tags, so reading ends at SeriesInstanceUID (0020,000E), long before the pixels.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_TRANSFER_SYNTAX, _SERIES = (0x0002, 0x0010), (0x0020, 0x000E)
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_IMPLICIT = "1.2.840.10008.1.2"
_UNREAD = {"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}  # big endian; deflated
_MAX_DEPTH = 16


class _NoSeries(Exception):
    """The file is no DICOM, or its header does not say."""


def series_uid(path: str | Path) -> str | None:
    """SeriesInstanceUID of a DICOM file; None if it is none, is damaged, or is stored in a rare way (big endian)."""
    try:
        with open(path, "rb") as file:
            if len(head := file.read(132)) < 132 or head[128:] != b"DICM":
                return None
            return _find(file)
    except (_NoSeries, OSError):
        return None


def _find(file: BinaryIO) -> str | None:
    syntax, explicit = "", True
    while True:
        start = file.tell()
        tag = struct.unpack("<HH", _exactly(file, 4))
        if tag[0] != 0x0002:
            if syntax in _UNREAD:
                return None
            explicit = syntax != _IMPLICIT
        if tag > _SERIES:
            return None
        file.seek(start)
        tag, representation, length = _header(file, explicit)
        if tag in (_TRANSFER_SYNTAX, _SERIES):
            value = _exactly(file, min(length, 64)).decode("ascii", "replace").strip("\0 ")
            if tag == _SERIES:
                return value or None
            syntax = value
        else:
            _skip(file, representation, length, explicit, 0)


def _header(file: BinaryIO, explicit: bool) -> tuple[tuple[int, int], bytes, int]:
    group, element = struct.unpack("<HH", _exactly(file, 4))
    if not explicit or group == 0xFFFE:
        return (group, element), b"", struct.unpack("<I", _exactly(file, 4))[0]
    representation = _exactly(file, 2)
    if representation in _LONG:
        return (group, element), representation, struct.unpack("<2xI", _exactly(file, 6))[0]
    return (group, element), representation, struct.unpack("<H", _exactly(file, 2))[0]


def _skip(file: BinaryIO, representation: bytes, length: int, explicit: bool, depth: int) -> None:
    """Move past a value; one of undefined length is a sequence, and its items are walked."""
    if length != _UNDEFINED:
        file.seek(length, 1)
        return
    if depth > _MAX_DEPTH:
        raise _NoSeries
    explicit = explicit and representation != b"UN"  # PS3.5, 6.2.2: unknown of undefined length is implicit inside
    while True:
        tag, _, length = _header(file, explicit)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise _NoSeries
        if length != _UNDEFINED:
            file.seek(length, 1)
            continue
        while True:
            tag, inner, length = _header(file, explicit)
            if tag == _ITEM_END:
                break
            _skip(file, inner, length, explicit, depth + 1)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _NoSeries
    return data

"""Files that no slide should be: cut, flipped, bombs, and what is no file at all."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile

MPP = 0.5


def write_pyramid(path: Path, picture: np.ndarray, compression: str) -> Path:
    """Two tiled levels at 0.5 µm per pixel; `zlib` or `jpeg`."""
    with tifffile.TiffWriter(path) as file:
        for level in range(2):
            file.write(
                cv2.resize(picture, None, fx=1 / (1 + level), fy=1 / (1 + level), interpolation=cv2.INTER_AREA),
                tile=(256, 256),
                photometric="ycbcr" if compression == "jpeg" else "rgb",
                compression=compression,
                subfiletype=level,
                resolution=(1e4 / MPP, 1e4 / MPP),
                resolutionunit=3,
            )
    return path


def cut(whole: bytes, folder: Path, name: str) -> list[Path]:
    """The file cut at ten places: header, first directory, its arrays, pixels, and just before its end."""
    size = len(whole)
    places = [2, 6, 9, 60, 400, size // 4, size // 2, 3 * size // 4, size - 100, size - 1]
    return [_write(folder / f"{name}-{place}.tiff", whole[:place]) for place in places]


def flip(whole: bytes, folder: Path, name: str, count: int) -> list[Path]:
    """Copies with 1 to 8 bits flipped, in turn among the first 600 bytes and anywhere."""
    random = np.random.default_rng(len(whole))
    paths = []
    for number in range(count):
        content = bytearray(whole)
        for place in random.integers(0, (600, len(whole))[number % 2], 1 + number % 8):
            content[place] ^= 1 << int(random.integers(8))
        paths.append(_write(folder / f"{name}-{number}.tiff", content))
    return paths


def tiff(path: Path, side: int, tile: int, tiles: list[bytes], *, claim: int | None = None, following: int = 0) -> Path:
    """A deflate TIFF of one level with the given compressed tiles.

    Parameters
    ----------
    claim
        Number of tiles the directory states, if not the truth.
    following
        Offset of a next directory.
    """
    start, number = 4096, len(tiles)
    offsets = np.cumsum([start, *(len(tile) for tile in tiles)])[:-1]
    lists = [struct.pack(f"<{number}I", *values) for values in (offsets, [len(tile) for tile in tiles])]
    tags: list[tuple[int, int, int, int | bytes]] = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, struct.pack("<3H", 8, 8, 8)), (259, 3, 1, 8), (262, 3, 1, 2),
        (277, 3, 1, 3), (282, 5, 1, struct.pack("<2I", 20000, 1)), (283, 5, 1, struct.pack("<2I", 20000, 1)),
        (284, 3, 1, 1), (296, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile),
        (324, 4, claim or number, lists[0] if number > 1 else int(offsets[0])),
        (325, 4, claim or number, lists[1] if number > 1 else len(tiles[0])),
    ]  # fmt: skip
    directory, data = struct.pack("<H", len(tags)), b""
    place = 8 + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in tags:
        if isinstance(value, bytes):
            data, value = data + value, place + len(data)
        directory += struct.pack("<HHII", tag, kind, count, value)
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", following) + data
    assert len(head) <= start
    return _write(path, head.ljust(start, b"\0") + b"".join(tiles))


def bombs(folder: Path) -> list[Path]:
    """Small files that claim, or inflate to, more than a machine has."""
    black = zlib.compress(bytes(256 * 256 * 3))
    squeeze = zlib.compressobj(9)
    giant = b"".join(squeeze.compress(bytes(1 << 24)) for _ in range(72)) + squeeze.flush()  # 1.2 GB
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 100)
    chain = b"".join(directory + struct.pack("<I", 8 + 18 * (number + 1)) for number in range(200_000))
    return [
        tiff(folder / "bomb-sides.tiff", 4_000_000_000, 256, [black]),
        tiff(folder / "bomb-side.tiff", 200_000, 256, [black]),
        tiff(folder / "bomb-tile.tiff", 100_000, 100_000, [black]),
        tiff(folder / "bomb-inflates.tiff", 20_000, 20_000, [giant]),
        tiff(folder / "bomb-count.tiff", 60_000, 256, [black], claim=4_000_000_000),
        tiff(folder / "bomb-loop.tiff", 1024, 256, [black] * 16, following=8),
        _write(folder / "bomb-chain.tiff", b"II*\0" + struct.pack("<I", 8) + chain),
        _png(folder / "bomb-picture.png", 40_000),
    ]


def no_slides(folder: Path) -> list[Path]:
    """Empty files, other formats under a slide's name, and what is no regular file."""
    paths = [_write(folder / "no-bytes.svs", b""), _write(folder / "no-tiff.tiff", b"slide_id,patient_id\n" * 50)]
    paths.append(_write(folder / "no-header.tiff", b"II*\0"))
    with zipfile.ZipFile(folder / "no-zip.ndpi", "w") as archive:
        archive.writestr("slide.txt", "none")
    (folder / "no-folder.svs").mkdir()
    os.mkfifo(folder / "no-fifo.svs")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket is 108 characters at most
        listening.bind("no-socket.svs")
        os.chdir(here)
    for name, target in (("no-end.svs", "/dev/zero"), ("no-target.svs", "nowhere"), ("no-way.svs", "no-way.svs")):
        (folder / name).symlink_to(target)
    (folder / "no-content.svs").touch()
    os.truncate(folder / "no-content.svs", 50 << 30)
    names = [
        "no-zip.ndpi",
        "no-folder.svs",
        "no-fifo.svs",
        "no-socket.svs",
        "no-end.svs",
        "no-target.svs",
        "no-way.svs",
    ]
    return [*paths, *(folder / name for name in names), folder / "no-content.svs"]


def _png(path: Path, side: int) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(1)
    row = bytes(3 * side + 1)
    data = b"".join(squeeze.compress(row) for _ in range(side // 40)) + squeeze.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return _write(path, b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def _write(path: Path, content: bytes | bytearray) -> Path:
    path.write_bytes(content)
    return path

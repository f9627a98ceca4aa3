"""How much a packed table may unpack to: what holds next to nothing must not fill the memory."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from histill.errors import HistillError

if TYPE_CHECKING:
    import h5py

# Tables of counts are packed to a tenth of their size, very sparse ones to a hundredth; zeros alone to a thousandth.
LEAST_BYTES, RATIO = 512 << 20, 300
_MEND = "check where the file comes from; if it is sound, unpack it"


def check(path: str | Path, unpacked: int, stored: int) -> None:
    """Refuse what would unpack to far more than a table of its size holds; sizes in bytes.

    Raises
    ------
    HistillError
        It names the file and both sizes.
    """
    if unpacked > max(LEAST_BYTES, RATIO * stored):
        raise HistillError(
            f"{path}: its {stored:,} bytes unpack to {unpacked:,} or more, as no table of expression does", mend=_MEND
        )


class Bounded(io.RawIOBase):
    """What a packed stream unpacks to, as long as that is in proportion.

    Parameters
    ----------
    stored
        Bytes of the packed stream.
    """

    def __init__(self, stream: BinaryIO, path: str | Path, stored: int):
        self._stream, self._path, self._stored, self._given = stream, path, stored, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._given += count
        check(self._path, self._given, self._stored)
        return count


def check_table(path: str | Path, handle: h5py.File) -> None:
    """Refuse an .h5ad whose X lies in another file, or is far larger than what is stored of it."""
    import h5py

    link = handle.get("X", getlink=True)
    found = handle.get("X") if isinstance(link, h5py.HardLink) else None
    if isinstance(link, h5py.ExternalLink) or (
        isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)
    ):
        raise HistillError(f"{path}: its X lies in another file", mend="write the matrix itself")
    if isinstance(found, h5py.Dataset):
        check(path, found.size * found.dtype.itemsize, found.id.get_storage_size())
    elif isinstance(found, h5py.Group):  # sparse; it is used as a dense matrix
        rows, columns = (int(side) for side in found.attrs.get("shape", (0, 0)))
        check(path, 4 * rows * columns, os.path.getsize(path))

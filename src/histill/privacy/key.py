"""The secret key, and the pseudonyms that only its holder can make or trace back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
from pathlib import Path

from histill.errors import HistillError

LEAST_BYTES = 32  # of a key, the length of the digest
LEAST_DIFFERENT = 10  # byte values; 32 random bytes have 30, 64 hexadecimal digits 14 or more
CHARACTERS = 16  # of a pseudonym behind its prefix: 80 bits
PREFIXES = {"patient": "p-", "slide": "s-"}
_MAKE = "make one: (umask 077; openssl rand -hex 32 > {})"


def read_key(path: str | Path) -> bytes:
    """The key of a file that its owner alone can read; a line break at its end does not count.

    Raises
    ------
    HistillError
        Where there is none, others may read it, or it is too short or too regular to be a secret.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(1 << 16).rstrip(b"\r\n")
    except IsADirectoryError:
        raise HistillError(f"the key {path} is a folder", mend=_MAKE.format(path / "key")) from None
    except OSError as error:
        raise HistillError(f"the key {path} cannot be read: {error.strerror}", mend=_MAKE.format(path)) from None
    if stat.S_IMODE(mode) & 0o077:
        raise HistillError(
            f"the key {path} can be read or changed by others (mode {stat.S_IMODE(mode):03o})",
            mend=f"chmod 600 {path}; if others may have read it, make a new one",
        )
    if len(key) < LEAST_BYTES:
        raise HistillError(
            f"the key {path} has {len(key)} bytes, fewer than {LEAST_BYTES}: ids could be found by trying keys",
            mend=_MAKE.format(path),
        )
    if len(set(key)) < LEAST_DIFFERENT:
        raise HistillError(
            f"the key {path} repeats {len(set(key))} characters: it is not random", mend=_MAKE.format(path)
        )
    return key


class Pseudonyms:
    """Ids to pseudonyms under a key: HMAC-SHA-256 of kind and id, 80 bits in base 32.

    One id has one pseudonym, in every sheet and every run under the key. A patient and a slide of the same id have two.

    Attributes
    ----------
    given
        (kind, id) -> pseudonym of all that were asked for.
    """

    def __init__(self, key: bytes):
        self._key = key
        self._owners: dict[str, str] = {}
        self.given: dict[tuple[str, str], str] = {}

    def patient(self, name: str) -> str:
        return self._of("patient", name)

    def slide(self, name: str) -> str:
        return self._of("slide", name)

    def _of(self, kind: str, name: str) -> str:
        if (kind, name) not in self.given:
            code = hmac.digest(self._key, f"{kind}\0{name}".encode(), hashlib.sha256)
            made = PREFIXES[kind] + base64.b32encode(code)[:CHARACTERS].decode().lower()
            other = self._owners.setdefault(made, name)
            if other != name:
                raise HistillError(f"{kind}s '{other}' and '{name}' get the same pseudonym", mend="use another key")
            self.given[kind, name] = made
        return self.given[kind, name]

"""Codes that stand for patients in what may leave the results."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from histill.errors import HistillError


def pseudonym(patient: str, key: bytes) -> int:
    """Code of a patient that only the holder of the key can make: HMAC-SHA-256, first 63 bits."""
    return int.from_bytes(hmac.digest(key, patient.encode(), hashlib.sha256)[:8], "big") >> 1


def pseudonyms(patients: Iterable[str], key: bytes) -> dict[str, int]:
    """Patient -> code.

    Raises
    ------
    HistillError
        If two patients get the same code.
    """
    codes = {patient: pseudonym(patient, key) for patient in patients}
    owners: dict[int, str] = {}
    for patient, code in codes.items():
        other = owners.setdefault(code, patient)
        if other != patient:
            raise HistillError(f"patients {other} and {patient} get the same pseudonym", mend="use another key")
    return codes

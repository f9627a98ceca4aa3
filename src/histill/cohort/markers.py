"""Markers of gliomas as tables write them: one reading for every spelling, and none for a spelling nobody knows."""

from __future__ import annotations

import re
from functools import cache

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_WILDTYPE = ("wt", "wildtype", "wild type", *_NO)
_MUTANT = ("mutant", "mut", "mutated", *_YES)
_LOWER = ("astrocytoma", "oligodendroglioma", "oligoastrocytoma", "mixed glioma", "diffuse glioma")


def _grades(digit: int, roman: str) -> tuple[str, ...]:
    return tuple(f"{before}{number}" for before in ("", "g", "grade ", "who grade ") for number in (digit, roman))


# Marker -> what it can be -> how tables write that, in lower case with one space for every run of other signs.
# Copy numbers are GISTIC calls: -2 homozygous deletion, -1 loss, 0 neutral, 1 gain, 2 amplification.
SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "idh": {
        "wildtype": (*_WILDTYPE, "idhwt", "idh wt", "idh wildtype", "idh wild type"),
        "mutant": (*_MUTANT, "idhmut", "idh mut", "idh mutant", "idh mutated"),
    },
    "codeletion": {
        "codeleted": ("codel", "codeleted", "co deleted", "1p 19q codeleted", *_YES),
        "intact": ("non codel", "noncodel", "non codeleted", "not codeleted", "intact", *_NO),
    },
    "cdkn2a": {
        "homozygous": ("-2", "homdel", "homozygous", "homozygous deletion", "deep deletion", "true", "yes"),
        "hemizygous": ("-1", "hetloss", "hemizygous", "hemizygous deletion", "shallow deletion"),
        "retained": ("0", "1", "2", "retained", "intact", "not deleted", "diploid", "gain", "wt", "false", "no"),
    },
    "grade": {f"G{number}": _grades(number, roman) for number, roman in enumerate(("i", "ii", "iii", "iv"), start=1)},
    "histology": {
        "glioblastoma": (
            *("glioblastoma", "gbm", "glioblastoma multiforme", "glioblastoma multiforme gbm", "glioblastoma nos"),
            *("treated primary gbm", "untreated primary de novo gbm", "gliosarcoma"),
        ),
        "anaplastic": (
            *(f"anaplastic {name}" for name in _LOWER[:3]),
            *(f"{name} anaplastic" for name in _LOWER[:3]),
            *("aastr", "aodg", "aoast"),  # OncoTree
        ),
        "lower grade": (
            *_LOWER,
            *(f"{name} nos" for name in _LOWER[:3]),
            *(f"diffuse {name}" for name in _LOWER[:3]),
            *("astr", "dastr", "odg", "oast", "difg"),  # OncoTree
        ),
    },
    "tert": {"present": (*_MUTANT, "c228t", "c250t"), "absent": _WILDTYPE},
    "egfr": {
        "present": ("2", "amp", "amplified", "amplification", "true", "yes"),
        "absent": ("1", "0", "-1", "-2", "not amplified", "non amplified", "gain", "diploid", "wt", "false", "no"),
    },
    "chr7_10": {
        "present": ("gain chr 7 loss chr 10", "+7 10", "7 gain 10 loss", "combined", *_YES),
        "absent": ("no combined cna", "not combined", *_NO),
    },
}
_COPY_NUMBERS = ("cdkn2a", "egfr")  # 1 is a gain here, not a yes
# Beside the empty cell's spellings of any sheet (`histill.cohort.rows.MISSING`).
_UNKNOWN = frozenset(
    {"", "-9", "nan", "unknown", "indeterminate", "not available", "not evaluated", "not reported", "not tested", "gx"}
)


@cache
def read(marker: str, text: str) -> str | None:
    """What a cell says of a marker (a key of `SPELLINGS[marker]`), None for "not known".

    Raises
    ------
    ValueError
        The spelling is not known; the message lists those that are.
    """
    said = _plain(text)
    if said in _UNKNOWN:
        return None
    for value, spellings in SPELLINGS[marker].items():
        if said in spellings:
            return value
    raise ValueError("; ".join(f"{value}: {', '.join(known)}" for value, known in SPELLINGS[marker].items()))


def _plain(text: str) -> str:
    """Lower case, numbers without decimals, one space for every run of signs: 'Non-Codel' is 'non codel'."""
    text = text.strip().casefold().replace("\N{MINUS SIGN}", "-")
    number = re.fullmatch(r"([-+]?)0*([0-9]+)([.]0*)?", text, re.ASCII)
    if number:
        return str(int(number[1] + number[2]))
    return re.sub(r"((?![+][0-9])[\W_])+", " ", text).strip()


def ambiguous(marker: str, texts: set[str]) -> bool:
    """Whether a column of copy numbers holds 1 and nothing but 0 and 1: gains, or a yes?"""
    said = {_plain(text) for text in texts} - _UNKNOWN
    return marker in _COPY_NUMBERS and "1" in said and said <= {"0", "1"}

"""Markers of gliomas as tables write them: one reading for every spelling, and none for a spelling nobody knows."""

from __future__ import annotations

import re
from functools import cache

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_WILDTYPE = ("wt", "wildtype", "wild type", "not mutated", "no mutation", *_NO)
_MUTANT = ("mutant", "mut", "mutated", *_YES)
# Hotspot of an IDH gene -> residues that it is known to change to.
_HOTSPOTS = {("idh1", "r132"): "hcsglpv", ("idh2", "r172"): "kmwsg"}
_HOTSPOT_CHANGES = tuple(
    f"{before}{residue}{to}"
    for (gene, residue), changed in _HOTSPOTS.items()
    for to in changed
    for before in ("", "p ", f"{gene} ", f"{gene} p ")
)
_CODELETED = ("codel", "codeleted", "codeletion", "co deleted", "co deletion")
_NOT = ("non", "not", "no")
_LOWER = ("astrocytoma", "oligodendroglioma", "oligoastrocytoma", "mixed glioma", "diffuse glioma")


def _grades(digit: int, roman: str) -> tuple[str, ...]:
    befores = ("", "g", "grade ", "who ", "who grade ", "who cns grade ", "cns who grade ")
    return tuple(f"{before}{number}" for before in befores for number in (digit, roman))


_ASTROCYTIC = ("glioblastoma", "astrocytoma", "diffuse astrocytoma", "anaplastic astrocytoma")


def _idh(states: tuple[str, ...], genes: tuple[str, ...]) -> tuple[str, ...]:
    """States after the name of a gene or a diagnosis of WHO 2016 or 2021 ('Astrocytoma, IDH-mutant')."""
    befores = (*genes, *(f"{diagnosis} idh" for diagnosis in _ASTROCYTIC))
    return tuple(f"{before} {state}" for before in befores for state in states)


_OLIGODENDROGLIOMAS = tuple(
    f"{name} idh mutant {joined}1p 19q {codeleted}"
    for name in ("oligodendroglioma", "anaplastic oligodendroglioma")
    for joined in ("and ", "")
    for codeleted in ("codeleted", "co deleted")
)

# Marker -> what it can be -> how tables write that, as `_plain` leaves it.
# Copy numbers are GISTIC calls: -2 homozygous deletion, -1 loss, 0 neutral, 1 gain, 2 amplification.
SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "idh": {
        "wildtype": (
            *(*_WILDTYPE, "idhwt", "lgg idhwt", "gbm idhwt"),
            *_idh(("wt", "wildtype", "wild type"), ("idh", "idh1 2")),
        ),
        "mutant": (
            *(*_MUTANT, "idhmut"),
            *_idh(("mut", "mutant", "mutated"), ("idh", "idh1", "idh2", "idh1 2")),
            *(f"{before}idhmut {codel}" for before in ("", "lgg ", "gbm ") for codel in ("codel", "non codel")),
            *_OLIGODENDROGLIOMAS,
            *_HOTSPOT_CHANGES,
        ),
    },
    "codeletion": {
        "codeleted": (
            *(f"{arms}{state}" for arms in ("", "1p 19q ", "1p19q ") for state in _CODELETED),
            *_OLIGODENDROGLIOMAS,
            *_YES,
        ),
        "intact": (
            *(f"{arms}{no} {state}" for arms in ("", "1p 19q ", "1p19q ") for no in _NOT for state in _CODELETED),
            *("noncodel", "intact", "1p 19q intact", "1p19q intact", *_NO),
        ),
    },
    "cdkn2a": {
        "homozygous": (
            *("-2", "homdel", "homozygous", "homozygous deletion", "homozygously deleted", "deep deletion"),
            *("true", "yes"),
        ),
        "hemizygous": (
            *("-1", "hetloss", "hemizygous", "hemizygous deletion", "hemizygously deleted", "shallow deletion"),
            *("heterozygous", "heterozygous deletion"),
        ),
        "retained": (
            *("0", "1", "2", "+1", "+2", "retained", "intact", "not deleted", "diploid", "gain"),
            *("amp", "amplified", "amplification", "wt", "false", "no"),
        ),
    },
    "grade": {f"G{number}": _grades(number, roman) for number, roman in enumerate(("i", "ii", "iii", "iv"), start=1)},
    "histology": {
        "glioblastoma": (
            *("glioblastoma", "gbm", "glioblastoma multiforme", "glioblastoma multiforme gbm", "glioblastoma nos"),
            *("treated primary gbm", "untreated primary de novo gbm", "gliosarcoma"),
            *("glioblastoma idh wildtype", "glioblastoma idh wild type"),
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
        "present": ("2", "+2", "amp", "amplified", "amplification", "true", "yes"),
        "absent": (
            *("1", "+1", "0", "-1", "-2", "not amplified", "non amplified", "no amplification", "gain", "diploid"),
            *("hetloss", "shallow deletion", "homdel", "deep deletion", "wt", "false", "no"),
        ),
    },
    "chr7_10": {
        "present": ("gain chr 7 loss chr 10", "+7 -10", "+7-10", "7+ 10-", "7 gain 10 loss", "combined", *_YES),
        "absent": ("no combined cna", "not combined", *_NO),
    },
}
_NAMED = 12  # spellings of a value in a message
_COPY_NUMBERS = ("cdkn2a", "egfr")  # 1 is a gain here, not a yes
# Beside the empty cell's spellings of any sheet (`histill.cohort.rows.MISSING`).
_UNKNOWN = frozenset(
    {"", "-", "--", "---", "?", ".", "-9", "nan", "na", "n a", "#n a", "gx"}
    | {"unknown", "indeterminate", "discrepancy"}
    | {f"not {done}" for done in ("available", "applicable", "evaluated", "reported", "tested", "allowed to collect")}
)

_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")  # hyphens, dashes and the minus of typography
_QUOTES = "'\"`\u2018\u2019\u201c\u201d "
_ENCLOSED = re.compile(r"\[([^][]*)\]|\((?![0-9])([^()]*)\)")  # not (2), which is -2 to an accountant
_ASIDE = re.compile(r"(?<= )\(([^()]*)\)")
_NUMBER = re.compile(r"([-+]?)0*([0-9]{1,9})([.]0*)?", re.ASCII)
_BETWEEN_WORDS = re.compile(
    r"""
      (?<=[a-z])-(?=[a-z0-9]) | (?<=[0-9])-(?=[a-z])      # a hyphen; between digits it may be a minus
    | [ ]-[ ](?![0-9])                                    # a dash; before a digit it may be a minus
    | (?<=[\w+-]) (?: [ _.]+ | (?<!\bno)(?<!\bno[nt])[ _.]*[/&,][ _.]* ) (?=[\w+-])
    """,
    re.ASCII | re.VERBOSE,
)


@cache
def read(marker: str, text: str) -> str | None:
    """What a cell says of a marker (a key of `SPELLINGS[marker]`), None for "not known".

    Raises
    ------
    ValueError
        The spelling is not known; the message lists the usual ones.
    """
    said = _plain(text)
    if said in _UNKNOWN:
        return None
    for value, spellings in SPELLINGS[marker].items():
        if said in spellings:
            return value
    raise ValueError("; ".join(f"{value}: {', '.join(known[:_NAMED])}" for value, known in SPELLINGS[marker].items()))


def _plain(text: str) -> str:
    """Lower case, numbers without decimals, one space between words: 'Non-Codel' is 'non codel'.

    A sign that may mean something stays: of a number (-2, +7), of doubt or comparison (?, <, *), or one nobody expects.
    """
    text = " ".join(text.casefold().translate(_DASHES).split()).strip(_QUOTES)
    if enclosed := _ENCLOSED.fullmatch(text):
        text = (enclosed[1] or enclosed[2] or "").strip(_QUOTES)
    if number := _NUMBER.fullmatch(text):
        return number[1].replace("-", "") + str(int(number[1] + number[2]))
    return _BETWEEN_WORDS.sub(" ", _ASIDE.sub(r"\1", text))


def ambiguous(marker: str, texts: set[str]) -> bool:
    """Whether a column of copy numbers holds 1 and nothing but 0 and 1: gains, or a yes?"""
    said = {_plain(text) for text in texts} - _UNKNOWN
    return marker in _COPY_NUMBERS and "1" in said and said <= {"0", "1"}

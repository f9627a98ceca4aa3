"""Classes of adult-type diffuse gliomas from molecular markers: the WHO 2021 diagnosis, the grade, the subtype.

The `clinical` preset follows the WHO classification of tumours of the central nervous system, 5th edition (Louis et
al., Neuro-Oncology 2021; 23:1231-1251), which took up these recommendations:

* cIMPACT-NOW update 3 (Brat et al., Acta Neuropathologica 2018; 136:805-810) and 6 (Louis et al., Brain Pathology 2020;
  30:844-856): an IDH-wildtype diffuse glioma is a glioblastoma by histology (microvascular proliferation or necrosis,
  grade 4), or by any one of TERT promoter mutation, EGFR amplification, and gain of chromosome 7 with loss of 10.
* cIMPACT-NOW update 5 (Brat et al., Acta Neuropathologica 2020; 139:603-608): an IDH-mutant astrocytoma with homozygous
  deletion of CDKN2A/B is of grade 4 whatever its histology. A hemizygous deletion does not count.

Histone H3 and age are not read: the rules are for cohorts of adults without H3-altered tumours. What the markers of a
patient do not decide has no class, with the reason.

The `published` preset labels as the public code around arXiv 2508.16479 does: what is not written as wildtype is
mutant, what is not written as codeleted is not codeleted, a hemizygous deletion of CDKN2A counts as deletion, and the
grade rule takes all but 2 and 3 for 4. It decides whatever it is given, so what it took for granted is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from histill.cohort.markers import SPELLINGS, read

# Names of columns as TCGA's tables have them (Ceccarelli et al., Cell 2016); None: not read unless named. No
# recipe knows of these and of the defaults of `Rule`: raise the cohort stage's version with a change of any.
COLUMNS: dict[str, str | None] = {
    "idh": "IDH status",
    "codeletion": "1p/19q codeletion",
    "cdkn2a": "CDKN2A",
    "grade": "Grade",
    "histology": "Histology",
    "tert": None,
    "egfr": None,
    "chr7_10": None,
}

GBM, ASTROCYTOMA_4 = "GBM IDH-wildtype", "astrocytoma G4"
ASTROCYTOMA_2_3, OLIGODENDROGLIOMA = "astrocytoma G2-3", "oligodendroglioma G2-3"
WILDTYPE, NON_CODEL, CODEL = "IDH-wildtype", "IDH-mutant non-codel", "IDH-mutant codel"

Seen = dict[str, str | None]  # marker -> what it is, None where that is not known


@dataclass(frozen=True)
class Verdict:
    """A class, or None; and why there is none, or what was taken for granted."""

    label: str | None
    remark: str | None = None


@dataclass(frozen=True)
class Rule:
    """A named rule that gives patients classes.

    Attributes
    ----------
    name
        `who2021-glioma`, `glioma-grade` or `glioma-subtype`.
    preset
        `clinical` or `published`.
    columns
        Marker -> column of the clinical sheet, for the markers that this rule reads.
    missing_cdkn2a
        `intact`: an unknown CDKN2A/B reads as not deleted (clinical diagnosis only); `unknown`: it decides nothing.
    unread
        Markers that the config names and this rule does not read.
    """

    name: str
    preset: str = "clinical"
    columns: dict[str, str] = field(default_factory=dict)
    missing_cdkn2a: str = "unknown"
    unread: list[str] = field(default_factory=list)

    @classmethod
    def from_config(cls, options: dict[str, Any]) -> Rule:
        """The rule of a task's options (`rule`, `preset`, `columns`, `missing_cdkn2a`)."""
        name, preset = options["rule"], options.get("preset", "clinical")
        named = options.get("columns", {})
        needs, may = _READS[name, preset]
        columns = {marker: named.get(marker, COLUMNS[marker]) for marker in (*needs, *may)}
        return cls(
            name,
            preset,
            {marker: column for marker, column in columns.items() if column is not None},
            options.get("missing_cdkn2a", "unknown"),
            [marker for marker, column in named.items() if column is not None and marker not in columns],
        )

    def needs(self) -> tuple[str, ...]:
        """Markers that the rule cannot do without."""
        return _READS[self.name, self.preset][0]

    def problems(self) -> Iterator[str]:
        """What the config asks of this rule and it cannot do."""
        who = f"rule '{self.name}', preset '{self.preset}',"
        for marker in self.unread:
            yield f"{who} does not read '{marker}'; remove columns.{marker}"
        for marker in self.needs():
            if marker not in self.columns:
                yield f"{who} cannot do without '{marker}'; name its column in columns.{marker}"
        if self.missing_cdkn2a != "unknown" and (self.name, self.preset) != ("who2021-glioma", "clinical"):
            yield f"{who} does not read missing_cdkn2a; remove it"

    def verdict(self, cells: dict[str, str | None]) -> Verdict:
        """The class of a patient from the text of its cells by marker (None: empty)."""
        seen = {marker: None if text is None else read(marker, text) for marker, text in cells.items()}
        if not any(seen.values()):
            return Verdict(None, "no marker is known")
        if self.missing_cdkn2a == "intact" and seen.get("cdkn2a") is None:
            seen["cdkn2a"] = "assumed intact"
        # Markers without a column are not known of anybody.
        return _DECISIONS[self.name, self.preset](dict.fromkeys(SPELLINGS) | seen)


def _graded(seen: Seen) -> Verdict:
    """'G2', 'G3', 'G4', or 'G2-3' where only histology tells: the grade column, else what histology implies."""
    grade, histology = seen["grade"], seen["histology"]
    if grade == "G1":
        return Verdict(None, "grade 1, which no diffuse glioma of adults has")
    if histology == "glioblastoma" and grade in ("G2", "G3"):
        return Verdict(None, "glioblastoma by histology and grade 2 or 3 contradict each other")
    if grade is not None:
        return Verdict(grade)
    implied = {"glioblastoma": "G4", "anaplastic": "G3", "lower grade": "G2-3"}
    return Verdict(implied[histology]) if histology else Verdict(None, "the grade is not known")


def _grade(seen: Seen) -> Verdict:
    graded = _graded(seen)
    if graded.label == "G2-3":
        return Verdict(None, "the grade is not known, and histology does not tell 2 from 3")
    return graded


def _subtype(seen: Seen) -> Verdict:
    if seen["idh"] is None:
        return Verdict(None, "IDH is not known")
    if seen["idh"] == "wildtype":
        if seen["codeletion"] == "codeleted":
            return Verdict(None, "IDH-wildtype and 1p/19q codeleted contradict each other")
        return Verdict(WILDTYPE)
    if seen["codeletion"] is None:
        return Verdict(None, "IDH-mutant, and 1p/19q is not known")
    return Verdict(CODEL if seen["codeletion"] == "codeleted" else NON_CODEL)


def _diagnosis(seen: Seen) -> Verdict:
    subtype, graded = _subtype(seen), _graded(seen)
    if subtype.label is None:
        return subtype
    if seen["grade"] == "G1":
        return graded
    if subtype.label == WILDTYPE:
        return _wildtype(seen, graded)
    if subtype.label == CODEL:
        above = "grade 4 in the sheet, while WHO 2021 grades oligodendrogliomas 2 or 3"
        return Verdict(OLIGODENDROGLIOMA, above if _is_4(graded) else None)
    return _astrocytoma(seen, graded)


def _is_4(graded: Verdict) -> bool:
    return graded.label == "G4"


def _wildtype(seen: Seen, graded: Verdict) -> Verdict:
    molecular = [seen[marker] for marker in _MOLECULAR]
    if _is_4(graded) or "present" in molecular:
        return Verdict(GBM)
    if graded.label is None:
        return Verdict(None, f"IDH-wildtype without a known molecular sign of glioblastoma: {graded.remark}")
    if None in molecular:
        return Verdict(None, "IDH-wildtype of grade 2 or 3; TERT promoter, EGFR and +7/-10 are not all known")
    return Verdict(None, "IDH-wildtype of grade 2 or 3 without a molecular sign of glioblastoma: no class of WHO 2021")


def _astrocytoma(seen: Seen, graded: Verdict) -> Verdict:
    if _is_4(graded) or seen["cdkn2a"] == "homozygous":
        return Verdict(ASTROCYTOMA_4)
    if graded.label is None:
        return Verdict(None, f"IDH-mutant astrocytoma without a known homozygous CDKN2A/B deletion: {graded.remark}")
    if seen["cdkn2a"] is None:
        return Verdict(None, "IDH-mutant astrocytoma of grade 2 or 3 whose CDKN2A/B is not known")
    assumed = seen["cdkn2a"] == "assumed intact"
    return Verdict(ASTROCYTOMA_2_3, "CDKN2A/B is not known and taken for not deleted" if assumed else None)


def _published(seen: Seen, label: str, *decisive: str) -> Verdict:
    """The label, with what the published rule took for granted among the markers that decided it."""
    granted = {
        "idh": "IDH taken for mutant",
        "codeletion": "1p/19q taken for not codeleted",
        "cdkn2a": "CDKN2A taken for not deleted",
        "grade": "the grade taken for 2 or 3",
    }
    taken = [granted[marker] for marker in decisive if seen[marker] is None]
    return Verdict(label, f"not known: {', '.join(taken)}" if taken else None)


def _published_grade(seen: Seen) -> Verdict:
    if seen["grade"] in ("G2", "G3", "G4"):
        return Verdict(seen["grade"])
    return Verdict("G4", "a grade other than 2, 3 and 4 is taken for 4")


def _published_subtype(seen: Seen) -> Verdict:
    if seen["idh"] == "wildtype":
        return Verdict(WILDTYPE)
    return _published(seen, CODEL if seen["codeletion"] == "codeleted" else NON_CODEL, "idh", "codeletion")


def _published_diagnosis(seen: Seen) -> Verdict:
    if seen["idh"] == "wildtype":
        return Verdict(GBM)
    if seen["codeletion"] == "codeleted":
        return _published(seen, OLIGODENDROGLIOMA, "idh")
    if seen["cdkn2a"] in ("homozygous", "hemizygous") or seen["grade"] == "G4":
        return _published(seen, ASTROCYTOMA_4, "idh", "codeletion")
    return _published(seen, ASTROCYTOMA_2_3, "idh", "codeletion", "cdkn2a", "grade")


_DECISIONS: dict[tuple[str, str], Callable[[Seen], Verdict]] = {
    ("who2021-glioma", "clinical"): _diagnosis,
    ("who2021-glioma", "published"): _published_diagnosis,
    ("glioma-grade", "clinical"): _grade,
    ("glioma-grade", "published"): _published_grade,
    ("glioma-subtype", "clinical"): _subtype,
    ("glioma-subtype", "published"): _published_subtype,
}
_MOLECULAR = ("tert", "egfr", "chr7_10")
# Rule and preset -> markers it cannot do without, markers it can.
_READS: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("who2021-glioma", "clinical"): (
        ("idh", "codeletion", "grade"),
        ("histology", "cdkn2a", *_MOLECULAR),
    ),
    ("who2021-glioma", "published"): (("idh", "codeletion", "grade"), ("cdkn2a",)),
    ("glioma-grade", "clinical"): (("grade",), ("histology",)),
    ("glioma-grade", "published"): (("grade",), ()),
    ("glioma-subtype", "clinical"): (("idh", "codeletion"), ()),
    ("glioma-subtype", "published"): (("idh", "codeletion"), ()),
}

"""Rules for gliomas: every branch of the decisions."""

from __future__ import annotations

import itertools

import pytest

from histill.cohort.glioma import Rule

MARKERS = ("idh", "codeletion", "cdkn2a", "grade", "histology", "tert", "egfr", "chr7_10")
GBM, ASTRO4, ASTRO23 = "GBM IDH-wildtype", "astrocytoma G4", "astrocytoma G2-3"
OLIGO = "oligodendroglioma G2-3"
CONTRADICTION = "IDH-wildtype and 1p/19q codeleted contradict each other"
NO_SIGN = "IDH-wildtype without a known molecular sign of glioblastoma"
NO_LOSS = "IDH-mutant astrocytoma without a known homozygous CDKN2A/B deletion"


def decide(name="who2021-glioma", preset="clinical", missing_cdkn2a="unknown", **cells):
    columns = {marker: marker for marker in MARKERS}
    rule = Rule(name, preset, columns, missing_cdkn2a)
    verdict = rule.verdict({marker: cells.get(marker) for marker in MARKERS})
    return verdict.label, verdict.remark


def wildtype(**cells):
    return decide(idh="WT", **cells)


def mutant(**cells):
    return decide(idh="Mutant", **cells)


def test_wildtype_is_glioblastoma_by_grade_histology_or_one_molecular_sign():
    assert wildtype(grade="G4") == (GBM, None)
    assert wildtype(histology="glioblastoma") == (GBM, None)
    assert wildtype(codeletion="non-codel", grade="G4", cdkn2a="0") == (GBM, None)
    for sign in ({"tert": "C228T"}, {"egfr": "2"}, {"chr7_10": "+7/-10"}):
        for grade in ("G2", "G3", None):
            assert wildtype(grade=grade, **sign) == (GBM, None)
    # Contradicting grades do not matter where a molecular sign decides.
    assert wildtype(grade="G2", histology="GBM", tert="Mutant") == (GBM, None)


def test_wildtype_of_lower_grade_without_a_sign_has_no_class():
    unknown = "IDH-wildtype of grade 2 or 3; TERT promoter, EGFR and +7/-10 are not all known"
    assert wildtype(grade="G2") == (None, unknown)
    assert wildtype(histology="astrocytoma", tert="WT", egfr="0") == (None, unknown)
    absent = {"tert": "WT", "egfr": "0", "chr7_10": "No combined CNA"}
    label, remark = wildtype(grade="G3", **absent)
    assert label is None
    assert remark.endswith("no class of WHO 2021")
    assert wildtype(**absent) == (None, f"{NO_SIGN}: the grade is not known")
    assert wildtype(grade="G3", histology="GBM", **absent)[1].startswith(f"{NO_SIGN}: glioblastoma by histology")


def test_wildtype_with_codeletion_is_a_contradiction_whatever_else_is_known():
    for cells in ({}, {"grade": "G4"}, {"tert": "Mutant", "grade": "G2"}):
        assert wildtype(codeletion="codel", **cells) == (None, CONTRADICTION)


def test_codeleted_mutants_are_oligodendrogliomas():
    for cells in ({}, {"grade": "G2"}, {"grade": "G3", "cdkn2a": "-2"}, {"histology": "astrocytoma"}):
        assert mutant(codeletion="codel", **cells) == (OLIGO, None)
    label, remark = mutant(codeletion="codel", grade="G4")
    assert (label, remark.startswith("grade 4 in the sheet")) == (OLIGO, True)


def test_only_a_homozygous_deletion_makes_an_astrocytoma_grade_4():
    assert mutant(codeletion="non-codel", grade="G2", cdkn2a="-2") == (ASTRO4, None)
    assert mutant(codeletion="non-codel", cdkn2a="-2") == (ASTRO4, None)
    assert mutant(codeletion="non-codel", grade="G2", cdkn2a="-1") == (ASTRO23, None)
    assert mutant(codeletion="non-codel", grade="G3", cdkn2a="0") == (ASTRO23, None)
    assert mutant(codeletion="non-codel", histology="anaplastic astrocytoma", cdkn2a="1") == (ASTRO23, None)
    for cdkn2a in ("-1", "0", None):
        assert mutant(codeletion="non-codel", grade="G4", cdkn2a=cdkn2a) == (ASTRO4, None)


def test_an_astrocytoma_with_unknown_cdkn2a_or_grade():
    unknown = "IDH-mutant astrocytoma of grade 2 or 3 whose CDKN2A/B is not known"
    assert mutant(codeletion="non-codel", grade="G2") == (None, unknown)
    assumed = (ASTRO23, "CDKN2A/B is not known and taken for not deleted")
    assert mutant(codeletion="non-codel", grade="G2", missing_cdkn2a="intact") == assumed
    assert mutant(codeletion="non-codel", grade="G2", cdkn2a="-2", missing_cdkn2a="intact") == (ASTRO4, None)
    for given in ("unknown", "intact"):
        assert mutant(codeletion="non-codel", missing_cdkn2a=given) == (None, f"{NO_LOSS}: the grade is not known")
    assert mutant(codeletion="non-codel", cdkn2a="0") == (None, f"{NO_LOSS}: the grade is not known")
    assert mutant(codeletion="non-codel", cdkn2a="0", grade="G2", histology="GBM")[0] is None


def test_what_decides_nothing():
    assert decide() == (None, "no marker is known")
    assert decide(missing_cdkn2a="intact") == (None, "no marker is known")
    assert decide(grade="G4", codeletion="non-codel") == (None, "IDH is not known")
    assert mutant(grade="G4") == (None, "IDH-mutant, and 1p/19q is not known")
    for idh in ("WT", "Mutant"):
        label, remark = decide(idh=idh, grade="G1", codeletion="non-codel", cdkn2a="-2", tert="Mutant")
        assert (label, remark) == (None, "grade 1, which no diffuse glioma of adults has")


def test_grades():
    for grade in ("G2", "G3", "G4"):
        assert decide("glioma-grade", grade=grade) == (grade, None)
    assert decide("glioma-grade", histology="GBM") == ("G4", None)
    assert decide("glioma-grade", histology="anaplastic oligodendroglioma") == ("G3", None)
    assert decide("glioma-grade", grade="G4", histology="astrocytoma") == ("G4", None)
    assert decide("glioma-grade", histology="astrocytoma")[0] is None
    assert decide("glioma-grade", grade="G3", histology="GBM")[1].endswith("contradict each other")
    assert decide("glioma-grade", grade="G1")[0] is None
    assert decide("glioma-grade", idh="WT") == (None, "the grade is not known")


def test_subtypes():
    assert decide("glioma-subtype", idh="WT") == ("IDH-wildtype", None)
    assert decide("glioma-subtype", idh="WT", codeletion="codel") == (None, CONTRADICTION)
    assert decide("glioma-subtype", idh="Mutant", codeletion="codel") == ("IDH-mutant codel", None)
    assert decide("glioma-subtype", idh="Mutant", codeletion="non-codel") == ("IDH-mutant non-codel", None)
    assert decide("glioma-subtype", idh="Mutant")[0] is None
    assert decide("glioma-subtype", codeletion="codel") == (None, "IDH is not known")


def published_class(idh, codeletion, cdkn2a, grade):
    """The rule of the public code, as the method's specification states it."""
    if idh == "WT":
        return GBM
    if codeletion == "codel":
        return OLIGO
    return ASTRO4 if cdkn2a in ("-1", "-2") or grade == "G4" else ASTRO23


def test_published_diagnosis_is_the_rule_of_the_public_code():
    written = itertools.product(
        ("WT", "Mutant", None), ("codel", "non-codel", None), ("-2", "-1", "0", "2", None), ("G2", "G3", "G4", None)
    )
    for cells in written:
        if any(cells):
            label, remark = decide(
                preset="published", **dict(zip(("idh", "codeletion", "cdkn2a", "grade"), cells, strict=True))
            )
            assert label == published_class(*cells), cells
            assert remark is None or None in cells, cells


def test_published_says_what_it_takes_for_granted():
    published = {"preset": "published"}
    assert decide(**published) == (None, "no marker is known")
    assert decide(**published, idh="WT", codeletion="codel") == (GBM, None)
    assert decide(**published, idh="Mutant", codeletion="non-codel", grade="G2") == (
        ASTRO23,
        "not known: CDKN2A taken for not deleted",
    )
    assert decide(**published, grade="G4")[1] == "not known: IDH taken for mutant, 1p/19q taken for not codeleted"
    assert decide("glioma-grade", **published, grade="G3") == ("G3", None)
    assert decide("glioma-grade", **published, grade="G1") == ("G4", "a grade other than 2, 3 and 4 is taken for 4")
    assert decide("glioma-subtype", **published, idh="WT", codeletion="codel") == ("IDH-wildtype", None)
    assert decide("glioma-subtype", **published, codeletion="codel")[0] == "IDH-mutant codel"
    assert decide("glioma-subtype", **published, idh="Mutant") == (
        "IDH-mutant non-codel",
        "not known: 1p/19q taken for not codeleted",
    )


def test_columns_are_those_of_tcga_unless_named():
    rule = Rule.from_config({"rule": "who2021-glioma", "columns": {"idh": "IDH1", "histology": None, "tert": "TERT"}})
    assert rule.columns == {
        "idh": "IDH1",
        "codeletion": "1p/19q codeletion",
        "grade": "Grade",
        "cdkn2a": "CDKN2A",
        "tert": "TERT",
    }
    assert (rule.preset, rule.missing_cdkn2a, list(rule.problems())) == ("clinical", "unknown", [])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rule": "glioma-grade", "columns": {"idh": "IDH"}}, "does not read 'idh'; remove columns.idh"),
        ({"rule": "who2021-glioma", "preset": "published", "columns": {"tert": "T"}}, "does not read 'tert'"),
        ({"rule": "who2021-glioma", "columns": {"idh": None}}, "cannot do without 'idh'; name its column"),
        ({"rule": "glioma-grade", "missing_cdkn2a": "intact"}, "does not read missing_cdkn2a"),
    ],
)
def test_what_a_rule_cannot_do(options, problem):
    (found,) = Rule.from_config(options).problems()
    assert problem in found


def test_a_marker_set_to_null_is_nobody_s_mistake():
    assert list(Rule.from_config({"rule": "glioma-grade", "columns": {"tert": None}}).problems()) == []

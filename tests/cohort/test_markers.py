"""Spellings of markers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histill.cohort import markers

KNOWN = [
    (marker, value, spelling)
    for marker, values in markers.SPELLINGS.items()
    for value, spellings in values.items()
    for spelling in spellings
]


# GDC's, Excel's, and a dash of typography.
NOTHING = ["'--", "#N/A", "\N{EM DASH}", "[Discrepancy]"]
DOUBTFUL = (
    "{}?",
    "!{}",
    "~{}",
    "*{}",
    "{}*",
    "<{}",
    ">{}",
    "\u2264{}",
    "\u2265{}",
    "- {}",
    "{} -",
    "{}+",
    "({}",
    "{}\u200b",
)


def test_no_spelling_has_two_readings():
    for marker, values in markers.SPELLINGS.items():
        spellings = [spelling for known in values.values() for spelling in known]
        assert len(spellings) == len(set(spellings)), marker


def separators(before, after):
    """What may stand for the space between two words."""
    yield from (" ", "  ", "\u00a0", "_", ".")
    if not re.search(r"\b(no|not|non)$", before):
        yield from ("/", " & ", ", ")
    if not re.search("[-+0-9]$", before) and not re.match("[-+0-9]", after):
        yield from ("-", "\N{EN DASH}", "\N{NON-BREAKING HYPHEN}", " - ", " \N{EM DASH} ")


@st.composite
def written(draw):
    """A known spelling in any case, with other signs between its words, in quotes or brackets or neither."""
    marker, value, spelling = draw(st.sampled_from(KNOWN))
    text = ""
    for at, char in enumerate(spelling):
        between = separators(spelling[:at], spelling[at + 1 :]) if char == " " else (char, char.upper())
        text += draw(st.sampled_from(list(between)))
    if re.fullmatch("-?[0-9]+", spelling):
        text = text.replace("-", draw(st.sampled_from("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212")))
        text += draw(st.sampled_from(["", ".0", ".00", "."]))
    before, after = draw(
        st.sampled_from([("", ""), (" ", ""), ('"', '"'), ("'", ""), ("[", "]"), ("\u201c", "\u201d")])
    )
    return marker, value, before + text + after


@given(written())
def test_case_and_signs_do_not_matter(case):
    marker, value, text = case
    assert markers.read(marker, text) == value


@given(st.sampled_from(sorted(markers.SPELLINGS)), st.text(max_size=12))
def test_a_text_is_read_as_one_of_the_values_or_refused(marker, text):
    try:
        value = markers.read(marker, text)
    except ValueError:
        return
    assert value is None or value in markers.SPELLINGS[marker]


@pytest.mark.parametrize(
    ("marker", "text", "value"),
    [
        ("idh", "WT", "wildtype"),
        ("idh", "Wild-type", "wildtype"),
        ("idh", "IDH-mutant", "mutant"),
        ("idh", "True", "mutant"),
        ("idh", "1.0", "mutant"),
        ("codeletion", "non-codel", "intact"),
        ("codeletion", "1p/19q codeleted", "codeleted"),
        ("cdkn2a", "-2.0", "homozygous"),
        ("cdkn2a", "−1", "hemizygous"),
        ("cdkn2a", "homozygous deletion", "homozygous"),
        ("grade", "II", "G2"),
        ("grade", "WHO grade 3", "G3"),
        ("histology", "Astrocytoma, anaplastic", "anaplastic"),
        ("histology", "Untreated primary (de novo) GBM", "glioblastoma"),
        ("egfr", "1", "absent"),
        ("egfr", "Amplification", "present"),
        ("chr7_10", "Gain chr 7 & loss chr 10", "present"),
        ("chr7_10", "No combined CNA", "absent"),
        ("chr7_10", "+7/-10", "present"),
        ("chr7_10", "+7/\N{MINUS SIGN}10", "present"),
        ("chr7_10", "7+/10-", "present"),
        ("cdkn2a", "\N{EN DASH}2", "homozygous"),
        ("cdkn2a", "\N{EM DASH}2", "homozygous"),
        ("cdkn2a", "\N{HYPHEN}2", "homozygous"),
        ("cdkn2a", "\N{NON-BREAKING HYPHEN}2", "homozygous"),
        ("cdkn2a", "(-2)", "homozygous"),
        ("cdkn2a", "'-2", "homozygous"),
        ("cdkn2a", "-0.0", "retained"),
        ("cdkn2a", "AMP", "retained"),
        ("egfr", "\N{EN DASH}2", "absent"),
        ("egfr", "+2", "present"),
        ("egfr", "HETLOSS", "absent"),
        ("idh", "Glioblastoma, IDH-wildtype", "wildtype"),
        ("idh", "Astrocytoma, IDH-mutant", "mutant"),
        ("idh", "Oligodendroglioma, IDH-mutant and 1p/19q-codeleted", "mutant"),
        ("idh", "LGG_IDHmut-non-codel", "mutant"),
        ("idh", "IDH1 R132H", "mutant"),
        ("idh", "IDH1 (p.R132H)", "mutant"),
        ("idh", "IDH2 R172K", "mutant"),
        ("idh", "NOT_MUTATED", "wildtype"),
        ("codeletion", "1p/19q codel", "codeleted"),
        ("codeletion", "1p19q-codeleted", "codeleted"),
        ("codeletion", "1p/19q non-codeleted", "intact"),
        ("codeletion", "Oligodendroglioma, IDH-mutant, 1p/19q-codeleted", "codeleted"),
        ("grade", "WHO CNS grade 4", "G4"),
        ("grade", "WHO IV", "G4"),
        ("histology", "Glioblastoma Multiforme (GBM)", "glioblastoma"),
        ("histology", "Glioblastoma, IDH-Wildtype", "glioblastoma"),
    ],
)
def test_spellings_of_real_tables(marker, text, value):
    assert markers.read(marker, text) == value


@pytest.mark.parametrize(
    "text", ["NAN", "nan", "", "-9", "-9.0", "--", "?", "[Not Evaluated]", "not reported", "GX", *NOTHING]
)
def test_not_known(text):
    assert all(markers.read(marker, text) is None for marker in markers.SPELLINGS)


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("idh", "2"),
        ("idh", "R132"),
        ("cdkn2a", "deleted"),  # one copy or both?
        ("cdkn2a", "-3"),
        ("cdkn2a", "-1.5"),
        ("grade", "G2/G3"),
        ("grade", "5"),
        ("histology", "ependymoma"),
        ("egfr", "Mutant"),
        ("chr7_10", "-7/+10"),
        ("chr7_10", "+7/10"),
        ("chr7_10", "7-/10+"),
        ("chr7_10", "no, combined"),
        ("cdkn2a", "- 2"),
        ("cdkn2a", "(2)"),  # -2 to an accountant
        ("cdkn2a", "2)"),
        ("cdkn2a", "-1/-2"),
        ("cdkn2a", "\N{FULLWIDTH HYPHEN-MINUS}2"),
        ("egfr", "not, amplified"),
        ("grade", "-2"),
        ("grade", "grade -2"),
        ("grade", "2-3"),
        ("idh", "\N{EN DASH}1"),
        ("idh", "+1"),
        ("idh", "+"),
        ("idh", "WT/mutant"),
        ("idh", "IDH1 R172K"),
        ("idh", "IDH1 wildtype"),  # and IDH2?
        ("codeletion", "Astrocytoma, IDH-mutant"),
        ("codeletion", "1p codeleted"),
    ],
)
def test_spellings_that_are_refused(marker, text):
    with pytest.raises(ValueError, match=next(iter(markers.SPELLINGS[marker]))):
        markers.read(marker, text)


@pytest.mark.parametrize("doubt", DOUBTFUL)
def test_a_known_spelling_with_a_sign_of_doubt_is_refused(doubt):
    for marker, _, spelling in KNOWN:
        with pytest.raises(ValueError, match=next(iter(markers.SPELLINGS[marker]))):
            markers.read(marker, doubt.format(spelling))


def test_a_column_of_0_and_1_could_be_calls_or_answers():
    assert markers.ambiguous("cdkn2a", {"0", "1.0", "-9"})
    assert markers.ambiguous("egfr", {"1"})
    assert not markers.ambiguous("cdkn2a", {"0"})
    assert not markers.ambiguous("cdkn2a", {"0", "1", "-1"})
    assert not markers.ambiguous("cdkn2a", {"0", "+1"})
    assert not markers.ambiguous("idh", {"0", "1"})

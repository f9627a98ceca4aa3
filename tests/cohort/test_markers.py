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


def test_no_spelling_has_two_readings():
    for marker, values in markers.SPELLINGS.items():
        spellings = [spelling for known in values.values() for spelling in known]
        assert len(spellings) == len(set(spellings)), marker


@st.composite
def written(draw):
    """A known spelling in any case, with other signs between its words."""
    marker, value, spelling = draw(st.sampled_from(KNOWN))
    sign = st.sampled_from([" ", "  ", "-", "_", "/", " - ", " & "])
    text = "".join(draw(sign) if char == " " else draw(st.sampled_from([char, char.upper()])) for char in spelling)
    if re.fullmatch("-?[0-9]+", spelling):
        text += draw(st.sampled_from(["", ".0", ".00", "."]))
    return marker, value, draw(st.sampled_from(["", " "])) + text


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
    ],
)
def test_spellings_of_real_tables(marker, text, value):
    assert markers.read(marker, text) == value


@pytest.mark.parametrize("text", ["NAN", "nan", "", "-9", "-9.0", "--", "?", "[Not Evaluated]", "not reported", "GX"])
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
    ],
)
def test_spellings_that_are_refused(marker, text):
    with pytest.raises(ValueError, match=next(iter(markers.SPELLINGS[marker]))):
        markers.read(marker, text)


def test_a_column_of_0_and_1_could_be_calls_or_answers():
    assert markers.ambiguous("cdkn2a", {"0", "1.0", "-9"})
    assert markers.ambiguous("egfr", {"1"})
    assert not markers.ambiguous("cdkn2a", {"0"})
    assert not markers.ambiguous("cdkn2a", {"0", "1", "-1"})
    assert not markers.ambiguous("idh", {"0", "1"})

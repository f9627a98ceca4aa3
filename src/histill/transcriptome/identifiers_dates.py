"""Gene symbols that a spreadsheet has turned into dates: SEPT2 -> 2-Sep, MARCH5 -> 5-Mar (Ziemann 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from histill.transcriptome import identifiers_table
from histill.transcriptome.identifiers_table import SEPARATOR

if TYPE_CHECKING:
    import pandas

# Symbols that a month may have come from. MARC1 and MARCH1 both become 1-Mar.
MONTHS = {
    "jan": ("JAN",),
    "feb": ("FEB",),
    "mar": ("MARCH", "MARC", "MAR"),
    "apr": ("APR",),
    "may": ("MAY",),
    "jun": ("JUN", "JUNE"),
    "jul": ("JUL",),
    "aug": ("AUG",),
    "sep": ("SEPT", "SEP"),
    "oct": ("OCT",),
    "nov": ("NOV",),
    "dec": ("DEC",),
}
NAME = "(?:" + "|".join(MONTHS) + ")"
# 2-Sep, 02-Sep-19; Sep-02, Sep-2; 2019-09-02 (as pandas writes a cell of Excel)
FORMS = (
    rf"(?P<day>\d{{1,2}})-(?P<month>{NAME})[a-z]{{0,6}}(?:-(?:\d{{2}}|\d{{4}}))?",
    rf"(?P<month>{NAME})[a-z]{{0,6}}-(?P<day>\d{{1,2}})",
    r"(?:19|20)\d{2}-(?P<month>\d{2})-(?P<day>\d{2})(?: 00:00:00)?",
)


def _parts(names: pandas.Series) -> pandas.DataFrame:
    """Day and month (three letters) of each name; empty text where it is no date."""
    import pandas

    numbers = {f"{number:02d}": month for number, month in enumerate(MONTHS, start=1)}
    parts = pandas.DataFrame({"day": "", "month": ""}, index=names.index)
    for form in FORMS:
        found = names.str.lower().str.extract(f"^{form}$").fillna("")
        parts = parts.where(parts["day"] != "", found[["day", "month"]])
    return parts.assign(day=parts["day"].str.lstrip("0"), month=parts["month"].replace(numbers))


def are_dates(names: pandas.Series) -> pandas.Series:
    """Which names are dates (bool)."""
    return _parts(names)["day"] != ""


def symbols(names: pandas.Series) -> pandas.Series:
    """Current symbols that the dates among the names were made of; several are joined by |, none is empty text.

    Aliases are thought of only where no current or previous symbol fits: tables of counts hardly hold them.
    """
    import pandas

    parts = _parts(names)
    found = pandas.Series("", index=names.index, dtype=str)
    for position, (day, month) in parts[parts["day"] != ""].iterrows():
        stems = [f"{stem}{day}" for stem in MONTHS.get(month, ())]
        found[position] = _candidates(stems, "current", "previous") or _candidates(stems, "alias")
    return found


def _candidates(names: list[str], *kinds: str) -> str:
    texts = {identifiers_table.index(kind).get(name, "") for kind in kinds for name in names}
    return SEPARATOR.join(sorted({symbol for text in texts for symbol in text.split(SEPARATOR)} - {""}))

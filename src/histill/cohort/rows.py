"""Rows of a sheet: any delimiter, any line end, every row's line number."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

# What an empty cell is written as in the sheets of the field; every one of them means "not known".
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "[not available]", "[not applicable]", "[unknown]"})


def read_rows(path: str | Path, problems: list[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line, row) pairs of a csv or tsv sheet; missing values are absent keys."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
        return [], []
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 text (byte {error.start}); save the sheet as CSV in UTF-8")
        return [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            while cells[-1] == "" and len(cells) > len(header):
                cells.pop()  # empty columns at the right edge, as spreadsheets save them
            if not header:
                header = cells
                continue
            if len(cells) != len(header):
                problems.append(f"{path}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}")
                continue
            row = {key: cell for key, cell in zip(header, cells, strict=True) if cell.lower() not in MISSING}
            rows.append((reader.line_num, row))
    except csv.Error as error:
        problems.append(f"{path}, line {reader.line_num}: {error}")
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        problems.append(f"{path}: column names occur more than once: {', '.join(map(repr, twice))}")
    if not rows:
        problems.append(f"{path}: holds no rows" if header else f"{path}: is empty; the first line names the columns")
    return header, rows


def _delimiter(path: Path, text: str) -> str:
    """Comma, or tab in .tsv and .txt; another one where only it cuts the header (Excel's CSV of half of Europe)."""
    usual = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    columns = {mark: _columns(text, mark) for mark in (usual, ",", ";", "\t")}
    return usual if columns[usual] > 1 else max(columns, key=columns.__getitem__)


def _columns(text: str, delimiter: str) -> int:
    """Cells of the header under a delimiter; 0 where it cannot be read so."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return len(next((row for row in rows if any(cell.strip() for cell in row)), []))
    except csv.Error:
        return 0

"""What is read of a slide: one field a kept 10x tile, read at 20x; its quarters are the four 20x tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.encoders.passes import CHILDREN
from histill.errors import SlideError
from histill.features.store_group import Layout
from histill.slides.table import read as read_tiles

_COLUMNS = ("tile", "tissue", "x", "y", "width", "height")


@dataclass(frozen=True)
class Fields:
    """The fields of a slide, in the order of its tile table.

    Attributes
    ----------
    boxes
        Level-0 x, y, width, height of each field [N, 4], int64.
    tables
        Magnification -> columns of its kept tiles: N at 10x, 4·N at 20x, the children of a field in a row.
    """

    boxes: np.ndarray
    tables: dict[str, dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.boxes)

    def check_inside(self, width: int, height: int, path: Path) -> None:
        """Raise a SlideError where a field does not touch the slide: its table is of another one, or was edited."""
        x, y, wide, high = self.boxes.T
        wrong = (wide < 1) | (high < 1) | (x >= width) | (y >= height) | (x + wide <= 0) | (y + high <= 0)
        if wrong.any():
            row, box = np.flatnonzero(wrong)[0], self.boxes[np.flatnonzero(wrong)[0]].tolist()
            problem = f"{path}: row {self.tables['10x']['tile'][row]} (x, y, width, height {box}) is not on the slide"
            raise SlideError(f"{problem} of {width} × {height} px", mend="run: snakemake -R tiles_batch")

    def layouts(self, dim: int, names: list[str] | None) -> dict[str, Layout]:
        """Magnification -> group of the store, for an encoder of `dim` features."""
        parents = {
            "10x": np.full(len(self), -1, np.int32),
            "20x": np.repeat(np.arange(len(self), dtype=np.int32), CHILDREN),
        }
        return {
            name: Layout(
                rows=len(table["tile"]),
                dim=dim,
                obs={"tile": table["tile"], "parent": parents[name], "tissue": table["tissue"]},
                spatial=np.column_stack([table["x"], table["y"]]).astype(np.int64),
                var_names=names,
            )
            for name, table in self.tables.items()
        }


def read_fields(path: str | Path) -> Fields:
    """Fields of a tile table.

    Raises
    ------
    SlideError
        If a 10x tile does not have its four 20x tiles.
    """
    columns = read_tiles(path)
    columns["tile"] = np.arange(len(columns["x"]), dtype=np.int32)
    fine, coarse = columns["magnification"] == "20x", columns["magnification"] == "10x"
    coarse_rows = np.flatnonzero(coarse & columns["keep"])
    fine_rows = np.flatnonzero(fine & np.isin(columns["parent"], coarse_rows))
    fine_rows = fine_rows[np.argsort(columns["parent"][fine_rows], kind="stable")]
    if not np.array_equal(columns["parent"][fine_rows], np.repeat(coarse_rows, CHILDREN)):
        raise SlideError(
            f"{path}: a 10x tile does not have its four 20x children", mend="run: snakemake -R tiles_batch"
        )
    tables = {
        name: {key: columns[key][rows] for key in _COLUMNS} for name, rows in (("10x", coarse_rows), ("20x", fine_rows))
    }
    return Fields(boxes(tables["10x"]), tables)


def no_fields() -> Fields:
    """Of a slide that has no tile."""
    columns = {"tile": np.zeros(0, np.int32), "tissue": np.zeros(0, np.float32)}
    columns |= {key: np.zeros(0, np.int64) for key in ("x", "y", "width", "height")}
    return Fields(boxes(columns), {"10x": columns, "20x": columns})


def boxes(table: dict[str, np.ndarray]) -> np.ndarray:
    """Level-0 x, y, width, height [N, 4] of the tiles of a table."""
    return np.column_stack([table[key] for key in ("x", "y", "width", "height")]).astype(np.int64)

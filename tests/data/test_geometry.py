"""Cells of a slide's grid, and 20x tiles in their 10x tiles."""

from __future__ import annotations

import numpy as np
import pytest

from histill.data.geometry import read_geometry, tile_step
from histill.features.store import Group, write_store


def grid(columns: np.ndarray, rows: np.ndarray, step: float, start: float = 0.0) -> np.ndarray:
    return np.round(start + step * np.column_stack([columns, rows])).astype(np.int64)


def tissue(seed: int = 0, size: int = 40) -> np.ndarray:
    """Columns and rows [N, 2] of a patchy piece of tissue, the first tile among them."""
    filled = np.random.default_rng(seed).random((size, size)) > 0.4
    filled[0, 0] = True
    return np.argwhere(filled)


@pytest.mark.parametrize("step", [224.0, 443.56, 887.13, 201.6])
def test_cells_are_found_back_over_the_whole_slide(tmp_path, step):
    cells = tissue()
    write_store(
        tmp_path / "s.zarr", {"20x": Group(np.ones((len(cells), 2), np.float16), grid(*cells.T, step, 77.3))}, {}
    )
    found = read_geometry([tmp_path / "s.zarr"], ["20x"])
    assert found.parents is None
    np.testing.assert_array_equal(found.cells["20x"], np.column_stack([np.zeros(len(cells)), cells]))


def test_a_step_of_grids_that_begin_anywhere_is_that_within_them():
    pieces = [grid(*tissue(seed, 12).T, 512, start) for seed, start in enumerate((3, 20_004, 41_007))]
    np.testing.assert_allclose(tile_step(np.concatenate(pieces)), 512)


def test_a_step_of_tiles_that_share_no_row_or_column():
    np.testing.assert_allclose(tile_step(np.array([[0, 0], [512, 512], [2048, 1536]])), 512)
    np.testing.assert_allclose(tile_step(np.array([[7, 7]])), 1)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.4])
def test_children_lie_in_quarters_of_their_parents(tmp_path, overlap):
    """Also where tiles overlap and the 20x grid is uneven."""
    parents = tissue()
    valid = np.random.default_rng(1).random(len(parents)) > 0.2
    coarse = grid(*parents.T, 448 * (1 - overlap))
    quarters = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    fine = (coarse[:, None] + 224 * quarters).reshape(-1, 2)
    parent = np.repeat(np.arange(len(parents)), 4)
    parent[:4] = -1
    groups = {
        "10x": Group(np.ones((len(coarse), 2), np.float16), coarse, {"valid": valid}),
        "20x": Group(np.ones((len(fine), 2), np.float16), fine, {"parent": parent, "valid": np.ones(len(fine), bool)}),
    }
    for name in "ab":
        write_store(tmp_path / f"{name}.zarr", groups, {})
    found = read_geometry([tmp_path / "a.zarr", tmp_path / "b.zarr"], ["10x", "20x"])
    assert {level: len(cells) for level, cells in found.cells.items()} == {"10x": 2 * valid.sum(), "20x": 2 * len(fine)}
    np.testing.assert_array_equal(found.cells["10x"][:, 0], np.repeat([0, 1], valid.sum()))
    np.testing.assert_array_equal(found.cells["10x"][: valid.sum(), 1:], parents[valid])
    expected = (2 * parents[:, None] + quarters).reshape(-1, 2)
    np.testing.assert_array_equal(found.cells["20x"][4 : len(fine), 1:], expected[4:])
    known = found.parents >= 0
    np.testing.assert_array_equal(known, np.tile((parent >= 0) & np.repeat(valid, 4), 2))
    above = found.cells["10x"][found.parents[known]]
    np.testing.assert_array_equal(above[:, 0], found.cells["20x"][known, 0])
    np.testing.assert_array_equal(above[:, 1:], found.cells["20x"][known, 1:] // 2)


@pytest.mark.parametrize(
    ("level", "spatial"),
    [
        ("slide", np.zeros((1, 2))),
        ("20x", np.full((5, 2), -1)),
        ("20x", np.zeros((5, 2))),
        ("20x", np.full((1, 2), -1)),
    ],
)
def test_what_has_no_coordinates_has_no_cells(tmp_path, level, spatial):
    write_store(tmp_path / "s.zarr", {level: Group(np.ones((len(spatial), 2), np.float16), spatial)}, {})
    assert (read_geometry([tmp_path / "s.zarr"], [level]).cells[level] == -1).all()


def test_an_empty_slide_has_no_cells(tmp_path):
    empty = Group(np.zeros((0, 2), np.float16), np.zeros((0, 2), np.int64))
    write_store(tmp_path / "s.zarr", {"10x": empty, "20x": empty}, {})
    found = read_geometry([tmp_path / "s.zarr"], ["10x", "20x"])
    assert {level: cells.shape for level, cells in found.cells.items()} == {"10x": (0, 3), "20x": (0, 3)}
    assert found.parents.shape == (0,)

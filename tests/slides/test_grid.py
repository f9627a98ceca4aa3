import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histill.slides.grid import Coverage, make_grid, step

MPP = st.floats(0.2, 0.55)
SIDE = st.integers(1, 6000)
SIZE = st.integers(32, 512).map(lambda half: half // 2 * 2)
OVERLAP = st.floats(0, 0.5, exclude_max=True)


@settings(max_examples=60, deadline=None)
@given(width=SIDE, height=SIDE, mpp_x=MPP, mpp_y=MPP, size=SIZE, overlap=OVERLAP)
def test_grid_holds_its_promises(width, height, mpp_x, mpp_y, size, overlap):
    grid = make_grid((width, height), (mpp_x, mpp_y), size, overlap)
    parents, children = grid.parents, grid.children
    assert len(children) == 4 * len(parents)
    if not len(parents):
        assert min(width * mpp_x, height * mpp_y) < size + 0.5 * max(mpp_x, mpp_y) + 1e-6
        return
    for boxes in (parents, children):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2]).max() <= width
        assert (boxes[:, 1] + boxes[:, 3]).max() <= height
        assert len(np.unique(boxes[:, :2], axis=0)) == len(boxes), "a tile occurs twice"
    # A tile's side is within one pixel of its nominal side: nothing accumulates.
    assert np.abs(parents[:, 2] - size / mpp_x).max() <= 1
    assert np.abs(children[:, 3] - size * 0.5 / mpp_y).max() <= 1
    np.testing.assert_array_equal(np.lexsort((parents[:, 0], parents[:, 1])), np.arange(len(parents)))

    top_left, top_right, bottom_left, bottom_right = children.reshape(-1, 4, 4).transpose(1, 0, 2)
    np.testing.assert_array_equal(top_left[:, :2], parents[:, :2])
    np.testing.assert_array_equal(top_left[:, 0] + top_left[:, 2], top_right[:, 0])
    np.testing.assert_array_equal(top_left[:, 1] + top_left[:, 3], bottom_left[:, 1])
    np.testing.assert_array_equal(bottom_right[:, :2] + bottom_right[:, 2:], parents[:, :2] + parents[:, 2:])
    areas = (children[:, 2] * children[:, 3]).reshape(-1, 4).sum(1)
    np.testing.assert_array_equal(areas, parents[:, 2] * parents[:, 3])


@given(mpp=MPP, size=SIZE)
@settings(max_examples=30, deadline=None)
def test_tiles_without_overlap_tessellate(mpp, size):
    parents = make_grid((4000, 700), (mpp, mpp), size).parents
    first = parents[parents[:, 1] == 0]
    np.testing.assert_array_equal(first[1:, 0], first[:-1, 0] + first[:-1, 2])
    edges = np.append(first[:, 0], first[-1:, 0] + first[-1:, 2]) if len(first) else np.zeros(0)
    np.testing.assert_array_equal(edges, np.rint(np.arange(len(edges)) * size / mpp))


def test_last_full_tile_is_there():
    assert len(make_grid((448, 448), (0.5, 0.5), 224).parents) == 1
    assert len(make_grid((447, 448), (0.5, 0.5), 224).parents) == 0
    assert len(make_grid((896, 448), (0.5, 0.5), 224).parents) == 2


def test_step_stays_above_half_a_tile():
    assert step(224, 0.25) == 168
    assert step(32, 0.499) == 17
    with pytest.raises(ValueError, match="outside"):
        step(224, 0.5)


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="even"):
        make_grid((1000, 1000), (0.5, 0.5), 223)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_coverage_is_exact_between_pixels(seed):
    random = np.random.default_rng(seed)
    mask = random.random((13, 17)) < 0.5
    x, y = random.integers(0, 160, 5), random.integers(0, 120, 5)
    boxes = np.stack([x, y, random.integers(1, 170 - x), random.integers(1, 130 - y)], axis=1)
    fine = np.kron(mask, np.ones((10, 10)))
    expected = [fine[top : top + height, left : left + width].mean() for left, top, width, height in boxes]
    np.testing.assert_allclose(Coverage(mask, (170, 130)).of(boxes), expected, atol=1e-6)

"""The grid's promises, for any resolution, slide size, tile size and overlap."""

from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from histill.slides import tile
from histill.slides.grid import Coverage, make_grid, step
from histill.slides.readers.levels import Level

SCANNERS = [0.2265, 0.25, 0.2528, 0.4, 0.499, 0.4999, 0.5, 1.0, 1.2]
MPP_X = st.sampled_from(SCANNERS) | st.floats(0.1, 1.2)
STRETCH = st.just(1.0) | st.floats(1 / 1.05, 1.05)  # what is more unequal is refused by inspect
SIDE = st.integers(1, 6000) | st.integers(1, 200_000)
SIZE = st.sampled_from([224, 256, 512]) | st.integers(16, 300).map(lambda half: 2 * half)
OVERLAP = st.just(0.0) | st.floats(0, 0.5, exclude_max=True)
BOTH = {"deadline": None}


def axis_of(boxes, axis):
    """Distinct (low, high) edges of boxes along x (0) or y (1)."""
    return np.unique(np.stack([boxes[:, axis], boxes[:, axis] + boxes[:, axis + 2]], axis=1), axis=0)


@settings(max_examples=150, **BOTH)
@given(width=SIDE, height=st.integers(1, 3000), mpp_x=MPP_X, stretch=STRETCH, size=SIZE, overlap=OVERLAP)
@example(150_000, 3000, 0.2528, 1.0, 224, 0.0)
@example(448, 448, 0.5, 1.0, 224, 0.0)
@example(1000, 249, 1.0279210298439183, 1.0, 256, 0.499)
def test_tiles_are_inside_distinct_and_made_of_their_children(width, height, mpp_x, stretch, size, overlap):
    mpp = mpp_x, mpp_x * stretch
    grid = make_grid((width, height), mpp, size, overlap)
    parents, children = grid.parents, grid.children
    assert len(children) == 4 * len(parents)
    if not len(parents):
        assert any(side < round(size / value) for side, value in zip((width, height), mpp, strict=True))
        return
    for boxes in (parents, children):
        assert boxes.min() >= 0
        assert boxes[:, 2:].min() >= 1
        assert (boxes[:, 0] + boxes[:, 2]).max() <= width
        assert (boxes[:, 1] + boxes[:, 3]).max() <= height
        assert len(np.unique(boxes[:, :2], axis=0)) == len(boxes), "a tile occurs twice"
    np.testing.assert_array_equal(np.lexsort((parents[:, 0], parents[:, 1])), np.arange(len(parents)))
    # Four boxes within the parent that share its outer edges and meet in one point cover it, and none twice.
    top_left, top_right, bottom_left, bottom_right = children.reshape(-1, 4, 4).transpose(1, 0, 2)
    middle = top_left[:, :2] + top_left[:, 2:]
    end = parents[:, :2] + parents[:, 2:]
    np.testing.assert_array_equal(top_left[:, :2], parents[:, :2])
    np.testing.assert_array_equal(top_right[:, :2], np.stack([middle[:, 0], parents[:, 1]], axis=1))
    np.testing.assert_array_equal(bottom_left[:, :2], np.stack([parents[:, 0], middle[:, 1]], axis=1))
    np.testing.assert_array_equal(bottom_right[:, :2], middle)
    np.testing.assert_array_equal(bottom_right[:, :2] + bottom_right[:, 2:], end)
    np.testing.assert_array_equal(top_right[:, 0] + top_right[:, 2], end[:, 0])
    np.testing.assert_array_equal(top_right[:, 1] + top_right[:, 3], middle[:, 1])
    np.testing.assert_array_equal(bottom_left[:, 0] + bottom_left[:, 2], middle[:, 0])
    np.testing.assert_array_equal(bottom_left[:, 1] + bottom_left[:, 3], end[:, 1])


@settings(max_examples=30, **BOTH)
@given(mpp_x=MPP_X, stretch=STRETCH, size=st.integers(16, 40).map(lambda half: 2 * half), overlap=OVERLAP)
def test_children_are_their_parent_pixel_by_pixel(mpp_x, stretch, size, overlap):
    grid = make_grid((200, 150), (mpp_x, mpp_x * stretch), size, overlap)
    for parent, children in zip(grid.parents, grid.children.reshape(-1, 4, 4), strict=True):
        count = np.zeros((150, 200), int)
        for x, y, width, height in children:
            count[y : y + height, x : x + width] += 1
        x, y, width, height = parent
        assert (count[y : y + height, x : x + width] == 1).all()
        assert count.sum() == width * height


@settings(max_examples=100, **BOTH)
@given(mpp=MPP_X, length=SIDE, size=SIZE, overlap=OVERLAP)
@example(0.2528, 150_000, 224, 0.0)
@example(0.2265, 150_000, 256, 0.0)
@example(0.499, 150_000, 224, 0.25)
@example(0.4999, 200_000, 224, 0.0)
@example(0.25, 150_000, 224, 0.0)
def test_every_edge_is_within_half_a_pixel_of_the_exact_one(mpp, length, size, overlap):
    """Nothing accumulates: edge k is k target pixels from the origin, whatever lies between."""
    grid = make_grid((length, round(size / mpp) + 1), (mpp, mpp), size, overlap)
    stride = step(size, overlap, mpp)
    parents, children = axis_of(grid.parents, 0), grid.children.reshape(-1, 4, 4)[:, :2]
    children = np.unique(children[:, :, 0], axis=0)  # left edges of the left and the right child
    assert len(parents) == len(children)
    exact_mpp = Fraction(mpp)
    half = Fraction(1, 2) + Fraction(1, 10**9)  # the quotient is a float: a tie may fall either way
    for index, ((low, high), (left, middle)) in enumerate(zip(parents.tolist(), children.tolist(), strict=True)):
        start = index * stride  # 10x pixels, of 1 µm
        assert left == low
        assert abs(low - start / exact_mpp) <= half
        assert abs(middle - (start + Fraction(size, 2)) / exact_mpp) <= half
        assert abs(high - (start + size) / exact_mpp) <= half
    # No full tile is left out at the far end.
    assert round((len(parents) * stride + size) / exact_mpp) > length


@settings(max_examples=50, **BOTH)
@given(mpp=MPP_X, size=SIZE)
def test_tiles_without_overlap_tessellate(mpp, size):
    grid = make_grid((20_000, round(size / mpp)), (mpp, mpp), size)
    for boxes in (grid.parents, grid.children):
        edges = axis_of(boxes, 0)
        np.testing.assert_array_equal(edges[1:, 0], edges[:-1, 1])


@settings(max_examples=50, **BOTH)
@given(mpp=MPP_X, size=SIZE, overlap=OVERLAP, length=SIDE)
def test_at_most_one_step_is_lost_at_the_far_edge(mpp, size, overlap, length):
    parents = make_grid((length, round(size / mpp) + 1), (mpp, mpp), size, overlap).parents
    if len(parents):
        covered = (parents[:, 0] + parents[:, 2]).max()
        assert (length - covered) * mpp < step(size, overlap, mpp) + mpp


class Painted:
    """A reader of a slide that is sharp tissue all over: only polygons decide."""

    def __init__(self, dimensions):
        self.dimensions = dimensions
        self._noise = np.random.default_rng(0).integers(-60, 40, (1200, 1200, 1))

    def level_for(self, x, y):
        return Level(*self.dimensions, 1.0)

    def read_region(self, x, y, width, height, out_width, out_height):
        assert x >= 0
        assert y >= 0
        assert x + width <= self.dimensions[0]
        assert y + height <= self.dimensions[1]
        noise = np.resize(self._noise, (out_height, out_width, 1))
        return np.clip(np.array([180, 110, 160]) + noise, 0, 255).astype(np.uint8)


@settings(max_examples=25, **BOTH)
@given(
    mpp_x=st.floats(0.2, 0.55),
    stretch=STRETCH,
    width=st.integers(300, 5000),
    height=st.integers(300, 5000),
    overlap=OVERLAP,
    min_tissue=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_tile_is_missing_where_tissue_is(mpp_x, stretch, width, height, overlap, min_tissue, seed):
    random = np.random.default_rng(seed)
    mpp = mpp_x, mpp_x * stretch
    slide = shapely.box(0, 0, width, height)
    discs = [
        shapely.Point(*random.uniform(0, (width, height))).buffer(random.uniform(50, 1200))
        for _ in range(random.integers(1, 5))
    ]
    hole = shapely.Point(*random.uniform(0, (width, height))).buffer(random.uniform(50, 400))
    tissue = shapely.difference(shapely.intersection(shapely.union_all(discs), slide), hole)
    polygons = [part for part in shapely.get_parts(tissue) if part.area > 0]
    overview = np.full((max(1, round(height * mpp[1] / 8)), max(1, round(width * mpp[0] / 8)), 3), 160, np.uint8)
    overview[..., 1] = 100
    options = {"size": 224, "overlap": overlap, "min_tissue": min_tissue, "exclude": ["pen", "blur", "black", "white"]}
    columns = tile.examine(Painted((width, height)), mpp, polygons, overview, options).columns

    coarse = columns["magnification"] == "10x"
    number = int(coarse.sum())
    boxes = np.stack([columns[name].astype(np.int64) for name in ("x", "y", "width", "height")], axis=1)
    listed = {tuple(box): row for row, box in enumerate(boxes[coarse].tolist())}
    assert len(listed) == number
    flagged = np.zeros(len(boxes), bool)
    for flag in options["exclude"]:
        flagged |= columns[flag].astype(bool)
    near = 0.03  # the mask's pixels are 8 µm
    for box in make_grid((width, height), mpp, 224, overlap).parents.tolist():
        x, y, w, h = box
        share = tissue.intersection(shapely.box(x, y, x + w, y + h)).area / (w * h)
        row = listed.get(tuple(box))
        if share > near:
            assert row is not None, "a full tile on tissue is not in the table"
        if row is None:
            continue
        assert columns["tissue"][row] == pytest.approx(share, abs=near)
        if share > min_tissue + near and not flagged[row]:
            assert columns["keep"][row], "a clean tile with enough tissue is not kept"
        if share < min_tissue - near:
            assert not columns["keep"][row]

    parent = columns["parent"][~coarse].astype(int)
    np.testing.assert_array_equal(parent, np.repeat(np.arange(number), 4))
    assert (columns["parent"][coarse] == -1).all()
    np.testing.assert_array_equal(columns["keep"][~coarse], columns["keep"][parent])
    assert not (columns["keep"].astype(bool) & coarse & flagged).any()
    inner, outer = boxes[~coarse], boxes[parent]
    assert (inner[:, :2] >= outer[:, :2]).all()
    assert (inner[:, :2] + inner[:, 2:] <= outer[:, :2] + outer[:, 2:]).all()


@pytest.mark.parametrize(("width", "count"), [(447, 0), (448, 1), (895, 1), (896, 2)])
def test_only_full_tiles(width, count):
    assert len(make_grid((width, 448), (0.5, 0.5), 224).parents) == count


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.5, 0.52), (0.2528, 0.2528)])
def test_a_slide_smaller_than_a_tile_says_so(mpp):
    options = {"size": 224, "overlap": 0.0, "min_tissue": 0.0, "exclude": []}
    dimensions = round(224 / mpp[0]) - 1, 3000
    overview = np.full((100, 28, 3), 150, np.uint8)
    columns = tile.examine(Painted(dimensions), mpp, [shapely.box(0, 0, *dimensions)], overview, options).columns
    assert not len(columns["x"])
    assert "smaller than one 10x tile" in tile.why_empty(columns, dimensions, mpp, options)


def test_step_stays_above_half_a_tile():
    assert step(224, 0.25) == 168
    assert step(32, 0.499) == 17
    assert step(256, 0.499, mpp=1.03) == 130, "at 129 children of neighbours would round to the same pixels"
    with pytest.raises(ValueError, match="outside"):
        step(224, 0.5)


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="even"):
        make_grid((1000, 1000), (0.5, 0.5), 223)


@pytest.mark.parametrize("full", [1, 4])
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, **BOTH)
def test_coverage_is_exact_between_pixels(full, seed):
    random = np.random.default_rng(seed)
    mask = random.integers(0, full, (13, 17), endpoint=True).astype(np.uint8)
    x, y = random.integers(0, 160, 5), random.integers(0, 120, 5)
    boxes = np.stack([x, y, random.integers(1, 170 - x), random.integers(1, 130 - y)], axis=1)
    fine = np.kron(mask / full, np.ones((10, 10)))
    expected = [fine[top : top + height, left : left + width].mean() for left, top, width, height in boxes]
    np.testing.assert_allclose(Coverage(mask, (170, 130), full).of(boxes), expected, atol=1e-6)
    np.testing.assert_allclose(
        Coverage(mask > 0, (170, 130)).of(boxes), Coverage((mask > 0).view(np.uint8), (170, 130)).of(boxes)
    )


def test_where_nothing_is_covered_the_share_is_zero():
    mask = np.zeros((3125, 4687), np.uint8)
    mask[200:900, 300:1900] = 1
    x, y = np.meshgrid(np.arange(0, 149_000, 896), np.arange(0, 99_000, 896))
    boxes = np.stack([x.ravel(), y.ravel(), np.full(x.size, 896), np.full(x.size, 896)], axis=1)
    far = boxes[boxes[:, 1] > 40_000]
    assert (Coverage(mask, (150_000, 100_000)).of(far) == 0).all()

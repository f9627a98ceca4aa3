import cv2
import numpy as np
import pytest

from histill.slides import quality, table
from histill.slides.grid import make_grid
from histill.slides.readers import open_slide

SIZE = (3200, 1600)  # at 0.5 µm per pixel: an overview of 200 × 100 pixels at 8
BOXES = np.array([[0, 0, 800, 800], [800, 0, 800, 800], [1600, 0, 800, 800], [2400, 0, 800, 800], [0, 800, 800, 800]])


def test_colour_flags():
    overview = np.full((100, 200, 3), 243, np.uint8)
    overview[:50, :50] = (225, 165, 200)
    overview[10:20, :50] = (30, 60, 190)  # pen over a fifth of the first tile
    overview[:50, 50:70] = 5  # an unlit border over two fifths of the second
    overview[:50, 70:100] = (225, 165, 200)
    overview[:50, 150:] = (140, 90, 165)
    flags = quality.colour_flags(overview, SIZE, BOXES)
    assert flags["pen"].tolist() == [True, False, False, False, False]
    assert flags["black"].tolist() == [False, True, False, False, False]
    assert flags["white"].tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(("sigma_um", "blurred"), [(0, False), (0.5, False), (4, True), (8, True)])
def test_blur_flags_strong_defocus_only(sigma_um, blurred, stained, write_slide, tmp_path):
    picture = stained(1200, 1200)
    if sigma_um:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma_um / 0.5)
    with open_slide(write_slide(tmp_path / "a.tiff", picture)) as reader:
        grid = make_grid(reader.dimensions, (0.5, 0.5), 224).take(np.array([0, 3]))
        parents, children = quality.blur_flags(reader, (0.5, 0.5), grid)
    assert parents.tolist() == [blurred, blurred]
    assert children[[3, 4]].tolist() == [blurred, blurred]


def test_blur_is_judged_block_by_block_alike(stained, write_slide, tmp_path, monkeypatch):
    picture = stained(1800, 1800)
    picture[:, 900:] = cv2.GaussianBlur(picture[:, 900:], (0, 0), 10)
    with open_slide(write_slide(tmp_path / "a.tiff", picture)) as reader:
        grid = make_grid(reader.dimensions, (0.5, 0.5), 224)
        whole = quality.blur_flags(reader, (0.5, 0.5), grid)
        monkeypatch.setattr(quality, "_BLOCK", 100)
        parts = quality.blur_flags(reader, (0.5, 0.5), grid)
    assert 0 < whole[0].sum() < len(whole[0])
    np.testing.assert_array_equal(whole[0], parts[0])
    assert (whole[1] != parts[1]).mean() < 0.05


def test_coarse_and_empty_are_not_judged():
    grid = make_grid((1000, 1000), (4.0, 4.0), 224)
    assert not quality.blur_flags(None, (4.0, 4.0), grid)[0].any()
    none = make_grid((10, 10), (0.5, 0.5), 224)
    assert [len(flags) for flags in quality.blur_flags(None, (0.5, 0.5), none)] == [0, 0]


@pytest.mark.parametrize(
    ("name", "shrink", "flag"),
    [
        ("histolab_no-tissue-red-pen.png", 4, "pen"),
        ("histolab_medium-nuclei-score-green-pen-level1.png", 4, "pen"),
        ("histolab_no-tissue.png", 4, "white"),
        ("histolab_almost-white-1.png", 16, "white"),
        ("histolab_no-tissue-line.png", 16, "white"),
        ("TCGA-AD-6964_Tile_22016_11776.jpg", 16, None),
        ("TCGA-AD-6964_Tile_23040_25088.jpg", 16, None),
        ("torchstain_target.png", 16, None),
    ],
)
@pytest.mark.shared_data
def test_real_fields(shared_data, name, shrink, flag):
    picture = cv2.cvtColor(cv2.imread(str(shared_data / "tiles" / name)), cv2.COLOR_BGR2RGB)
    small = cv2.resize(picture, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    size = picture.shape[1], picture.shape[0]
    flags = quality.colour_flags(small, size, np.array([[0, 0, *size]]))
    assert [key for key, value in flags.items() if value[0]] == ([flag] if flag else [])


def test_table_goes_to_disk_and_back(tmp_path):
    columns = table.empty()
    number = 21
    random = np.random.default_rng(0)
    for field in table.SCHEMA:
        columns[field.name] = random.integers(0, 2, number)
    columns["magnification"] = np.repeat(["10x", "20x"], [1, 20])
    table.write(tmp_path / "a.parquet", columns, size=224, overlap=0.25)
    found = table.read(tmp_path / "a.parquet")
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)
    assert {found[name].dtype.str for name in ("x", "parent")} == {"<i4"}
    assert found["keep"].dtype == bool
    assert found["tissue"].dtype == np.float32
    table.write(tmp_path / "b.parquet", table.empty(), size=224, overlap=0)
    assert [len(values) for values in table.read(tmp_path / "b.parquet").values()] == [0] * len(table.SCHEMA)

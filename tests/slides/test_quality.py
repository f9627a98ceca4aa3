import re
import zipfile

import cv2
import numpy as np
import pytest

from histill.slides import colour, detail, fold, quality, table
from histill.slides.grid import make_grid
from histill.slides.ink import COLOURS, find_ink, ink_pixels
from histill.slides.readers import open_slide
from tests.slides import fields

SIDE = 448  # one 10x tile at 0.5 µm per pixel
SEEDS = range(100, 106)


@pytest.mark.parametrize("ground", ["glass", "tissue"])
@pytest.mark.parametrize("name", COLOURS)
def test_pen_and_its_colour(name, ground):
    density = np.zeros((3 * SIDE, 3 * SIDE, 3)) if ground == "glass" else fields.tissue(3 * SIDE, 3 * SIDE, 1)
    density = fields.ink(density, name, [(60, 500), (1290, 800)], 120)
    flags = fields.judge(fields.render(density), size=224)
    assert flags["pen"].reshape(3, 3)[1].all(), "the row that the stroke crosses"
    assert not flags["pen"].reshape(3, 3)[[0, 2]].any()
    assert set(flags["pen_colour"][flags["pen"]]) == {name}
    assert set(flags["pen_colour"][~flags["pen"]]) == {""}
    assert not flags["blood"].any()
    assert not flags["black"].any()


def test_overstained_tissue_is_no_pen_and_no_blood():
    for strength in (0.4, 1.0, 1.6, 2.2):
        density = fields.tissue(SIDE, SIDE, 2)
        density[:, 200:] = density[:, 200:] * [0.3, strength, strength] + 0.1 * fields.EOSIN
        assert not fields.raised(fields.render(density)) & {"blood", "pen red", "pen blue", "pen green", "pen black"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lake_of_erythrocytes_is_blood_and_red_ink_is_not(seed):
    density = fields.tissue(SIDE, SIDE, seed)
    assert fields.raised(fields.render(fields.blood(density, (60, 60, 360, 360), seed), seed)) == {"blood"}
    assert "pen red" in fields.raised(fields.render(fields.ink(density, "red", [(0, 224), (448, 224)], 160), seed))


def test_what_is_black_without_being_drawn():
    picture = fields.render(fields.tissue(4 * SIDE, 4 * SIDE, 3))
    border = picture.copy()
    border[:, :200] = border[:150] = 3
    hole = picture.copy()
    hole[500:1000, 500:1100] = 0
    for unlit in (border, hole):
        flags = fields.judge(unlit, size=224)
        assert flags["black"].any()
        assert not flags["pen"].any()
    grains = picture.copy()
    for x, y in np.random.default_rng(0).integers(0, 4 * SIDE, (300, 2)).tolist():
        cv2.circle(grains, (x, y), 14, (25, 22, 20), -1)
    flags = fields.judge(grains, size=224)
    assert not flags["pen"].any()
    assert not flags["black"].any()


def test_a_black_stroke_to_the_frame_is_ink():
    density = fields.ink(fields.tissue(3 * SIDE, 3 * SIDE, 3), "black", [(0, 600), (1343, 700)], 120)
    picture = fields.render(density)
    overview = cv2.resize(picture, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
    found = find_ink(ink_pixels(overview, colour.optical_density(overview, np.full(3, 245, np.float32))), 8.0)
    assert (found.colour == 1 + COLOURS.index("black")).mean() > 0.05
    assert found.black.mean() < 0.01


@pytest.mark.parametrize("width_um", [24, 40, 80])
def test_folds_are_found(width_um):
    found = []
    for seed in SEEDS:
        density = fields.tissue(3 * SIDE, 3 * SIDE, seed)
        density = fields.folded(density, [(200, 0), (800, 700), (700, 1343)], 2 * width_um)
        flags = fields.judge(fields.render(density, seed), size=224)
        line = fields.stroke(density.shape, [(200, 0), (800, 700), (700, 1343)], 2 * width_um)[..., 0]
        crossed = line.reshape(3, SIDE, 3, SIDE).mean((1, 3)).ravel() > 0.10
        found.append(flags["fold"][crossed].mean())
        assert not flags["fold"][line.reshape(3, SIDE, 3, SIDE).mean((1, 3)).ravel() == 0].any()
    assert np.mean(found) > 0.8


def test_what_is_dark_and_narrow_is_no_fold():
    for seed in SEEDS:
        plain = fields.tissue(3 * SIDE, 3 * SIDE, seed)
        line = fields.stroke(plain.shape, [(0, 300), (1343, 900)], 100)
        crowded = plain * (1 - line) + line * fields.tissue(3 * SIDE, 3 * SIDE, seed, nuclei=3)
        muscle = plain + line * 0.5 * fields.EOSIN
        lymphoid = plain * (1 + line) + line * 0.8 * fields.HAEMATOXYLIN  # packed nuclei
        for density in (plain, crowded, muscle, lymphoid):
            assert not fields.judge(fields.render(density, seed), size=224)["fold"].any()
    even = np.full((40, 40, 3), 30, np.uint8)
    assert not fold.fold_mask(even, np.zeros((40, 40), bool), 8.0).any()
    assert not fold.fold_mask(even, np.ones((40, 40), bool), 16.0).any()


def test_the_overview_is_judged_in_bands_alike(monkeypatch):
    density = fields.tissue(3 * SIDE, 3 * SIDE, 7)
    density = fields.folded(density, [(200, 0), (800, 700), (700, 1343)], 80)
    picture = fields.render(fields.ink(density, "blue", [(0, 300), (1343, 200)], 100))
    whole = fields.judge(picture, size=224)
    monkeypatch.setattr(quality, "_BAND", 17)
    parts = fields.judge(picture, size=224)
    assert whole["fold"].any()
    assert whole["pen"].any()
    for flag, values in whole.items():
        np.testing.assert_array_equal(values, parts[flag])


@pytest.mark.parametrize(("sigma_um", "share"), [(0, 0), (0.5, 0), (2.5, 1), (4, 1), (8, 1)])
def test_blur_is_defocus_of_two_micrometres_and_more(sigma_um, share):
    picture = np.hstack([fields.render(fields.tissue(SIDE, SIDE, seed), seed) for seed in SEEDS])
    if sigma_um:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma_um / fields.MPP)
    assert fields.judge(picture, size=224)["blur"].mean() == share


@pytest.mark.parametrize("left", [0.3, 0.6])
@pytest.mark.parametrize(("sigma_um", "blurred"), [(0, False), (0.5, False), (2.5, True)])
def test_a_tile_that_is_partly_glass_is_judged_by_its_tissue(left, sigma_um, blurred):
    density = np.hstack([fields.tissue(SIDE, SIDE, seed) for seed in SEEDS])
    rows = np.arange(SIDE) % (224 * 2) >= left * 224 * 2  # of every 10x tile the upper part is tissue
    density[rows] = 0
    picture = fields.render(cv2.GaussianBlur(density, (0, 0), 0.8))
    if sigma_um:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma_um / fields.MPP)
    assert fields.judge(picture, size=224)["blur"].all() == blurred
    assert fields.judge(picture, size=224)["blur"].any() == blurred


def test_smooth_mucus_and_empty_glass_are_not_out_of_focus():
    random = np.random.default_rng(0)
    for spread in (0.0, 0.004, 0.008):
        clouds = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 30)
        density = (0.15 + spread * clouds / clouds.std())[..., None] * np.ones(3)
        assert not fields.judge(fields.render(density))["blur"].any()
    assert fields.raised(fields.render(np.zeros((SIDE, SIDE, 3)))) == {"white"}


def test_detail_is_measured_block_by_block_alike(stained, write_slide, tmp_path, monkeypatch):
    picture = stained(1800, 1800)
    picture[:, 900:] = cv2.GaussianBlur(picture[:, 900:], (0, 0), 10)
    glass = np.full(3, 243, np.float32)
    with open_slide(write_slide(tmp_path / "a.tiff", picture)) as reader:
        grid = make_grid(reader.dimensions, (0.5, 0.5), 224)
        rows = np.arange(len(grid.parents))
        whole = detail.measure(reader, (0.5, 0.5), grid, rows, glass)
        monkeypatch.setattr(detail, "_BLOCK", 100)
        parts = detail.measure(reader, (0.5, 0.5), grid, rows, glass)
        some = detail.measure(reader, (0.5, 0.5), grid, rows[::2], glass)
    assert 0 < whole.blur[: len(rows)].sum() < len(rows)
    np.testing.assert_array_equal(whole.blur[: len(rows)], parts.blur[: len(rows)])
    assert (whole.blur != parts.blur).mean() < 0.05
    np.testing.assert_array_equal(some.judged, rows % 2 == 0)
    np.testing.assert_array_equal(some.blur[: len(rows)], parts.blur[: len(rows)] & some.judged)
    assert np.abs(whole.pixels.astype(float).mean((1, 2)) - parts.pixels.astype(float).mean((1, 2))).max() < 5


def test_coarse_and_empty_are_not_judged():
    grid = make_grid((1000, 1000), (4.0, 4.0), 224)
    glass = np.full(3, 243, np.float32)
    coarse = detail.measure(None, (4.0, 4.0), grid, np.arange(len(grid.parents)), glass)
    assert not coarse.blur.any()
    assert not coarse.judged.any()
    none = make_grid((10, 10), (0.5, 0.5), 224)
    assert len(detail.measure(None, (0.5, 0.5), none, np.zeros(0, int), glass).blur) == 0


# Picture -> assumed µm per pixel and what it shows, by its name and by eye. The limits between inks, blood and eosin
# were read off these pictures among others: they guard what works, and are no independent measure.
PICTURES = {
    "TCGA-AD-6964_Tile_16896_20480.jpg": (0.5, set()),
    "TCGA-AD-6964_Tile_22016_11776.jpg": (0.5, set()),
    "TCGA-AD-6964_Tile_23040_25088.jpg": (0.5, set()),
    "histolab_almost-white-1.png": (0.5, {"white"}),
    "histolab_high-nuclei-score-red-pen-level1.png": (1.0, {"pen red", "fold", "blur"}),  # the fold is out of focus
    "histolab_low-nuclei-score-level0.png": (0.25, set()),
    "histolab_medium-nuclei-score-green-pen-level1.png": (1.0, {"pen green", "blur"}),
    "histolab_no-tissue-line.png": (0.5, {"white"}),
    "histolab_no-tissue-red-pen.png": (1.0, {"pen red", "blur", "white"}),
    "histolab_no-tissue.png": (0.5, {"white"}),
    "torchstain_source.png": (0.5, set()),
    "torchstain_target.png": (0.5, set()),
}


def _rgb(data: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.shared_data
def test_real_pictures(name, shared_data):
    mpp, shown = PICTURES[name]
    picture = _rgb(np.fromfile(shared_data / "tiles" / name, np.uint8))
    flags = fields.judge(picture, mpp, size=100)  # 10x tiles of 0.1 mm: the smallest picture holds four
    found = {flag for flag in quality.FLAGS if flag != "pen" and flags[flag].any()}
    found |= {f"pen {colour}" for colour in flags["pen_colour"] if colour}
    assert found == shown


@pytest.mark.shared_data
def test_real_tissue_has_few_false_alarms(shared_data):
    """190 fields of lung cancer at about 0.5 µm per pixel; eight of them hold lakes of erythrocytes."""
    with zipfile.ZipFile(shared_data / "tiles" / "uni_tcga_luadlusc.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg") and not name.startswith("__MACOSX")]
        found = {name: fields.raised(_rgb(np.frombuffer(archive.read(name), np.uint8))) for name in names}
    assert len(found) == 190
    bloody = {name for name in names if re.search(r"LUAD/1_[0-9]_521", name)}
    assert {name for name, flags in found.items() if "blood" in flags} <= bloody
    assert sum("blood" in found[name] for name in bloody) >= 8
    alarms = {flag: sum(flag in flags for flags in found.values()) for flag in ("blur", "fold", "black", "white")}
    alarms["pen"] = sum(any(flag.startswith("pen") for flag in flags) for flags in found.values())
    assert alarms.pop("fold") <= 0.02 * len(found)
    assert not any(alarms.values()), alarms


def test_table_goes_to_disk_and_back(tmp_path):
    columns = table.empty()
    number = 21
    random = np.random.default_rng(0)
    for field in table.SCHEMA:
        columns[field.name] = random.integers(0, 2, number)
    columns["magnification"] = np.repeat(["10x", "20x"], [1, 20])
    columns["pen_colour"] = np.resize(["", "red", "green", "blue", "black"], number)
    table.write(tmp_path / "a.parquet", columns, size=224, overlap=0.25)
    found = table.read(tmp_path / "a.parquet")
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)
    assert {found[name].dtype.str for name in ("x", "parent")} == {"<i4"}
    assert found["keep"].dtype == bool
    assert found["tissue"].dtype == np.float32
    table.write(tmp_path / "b.parquet", table.empty(), size=224, overlap=0)
    assert [len(values) for values in table.read(tmp_path / "b.parquet").values()] == [0] * len(table.SCHEMA)

"""The section of the subspaces: its counts, and maps whose colours lie where the tiles do."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from histill.methods import maps
from histill.methods.train import run_folder
from histill.report import subspace_map
from histill.report.stage import run
from histill.report.subspace_map import COLOURS, Layer, draw_map, drawable
from histill.report.subspaces import subspace_facts

TASK = "survival"
TUMOR, OTHER = (np.array(colour) for colour in COLOURS[:2])


@pytest.fixture(scope="module")
def mapped(full_run, tmp_path_factory):
    """(config, results) of the fake run with maps of every test patient; patients P000 to P005 have slides S00 to S05.

    Tiles lie in 4 columns and rows of 448 pixels at 10x, the left half of them tumour.
    """
    config, finished = full_run
    results = tmp_path_factory.mktemp("mapped") / "results"
    shutil.copytree(finished, results)
    for task in config["tasks"]:
        for fold in range(3):
            _write(results, task, fold, config["seeds"][0])
    return config, results


def _write(results, task, fold, seed):
    folder = run_folder(results, task, "disentangled", "student", fold, seed)
    predicted = pq.read_table(folder / "predictions.parquet").to_pylist()
    patients = sorted(row["patient_id"] for row in predicted if row["split"] == "test")
    tiles, kept = [], []
    for patient in patients:
        for level, side in (("10x", 448), ("20x", 224)):
            count = 4 if level == "10x" else 8
            places = [(side * (column + 2), side * (row + 2)) for row in range(count) for column in range(count)]
            for x, y in places:
                p = 1.0 if x < side * (2 + count // 2) else 0.0
                row = {"patient_id": patient, "slide_id": f"S{int(patient[1:]):02d}", "magnification": level}
                weight = {"w:tumor": 1 / len(places), "w:microenvironment": 1 / len(places)}
                tiles.append(row | {"x": x, "y": y, "tile": -1, "p:tumor": p, "p:microenvironment": 1 - p} | weight)
            kept.append(
                {"patient_id": patient, "magnification": level, "tiles": len(places)}
                | {"kept:tumor": 1 + int(patient[1:]) % 3, "kept:microenvironment": 1}
            )
    table = pa.Table.from_pylist(tiles)
    for name in ("p:tumor", "p:microenvironment"):
        table = table.set_column(table.column_names.index(name), name, pa.array(table[name].to_numpy(), pa.float16()))
    with pq.ParquetWriter(folder / maps.TILES, table.schema) as writer:
        for patient in patients:
            writer.write_table(table.filter(pa.compute.equal(table["patient_id"], patient)))
    pq.write_table(pa.Table.from_pylist(kept), folder / maps.TOKENS)


def pixels(uri):
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int), len(content)


def test_tokens_and_shares(mapped):
    config, results = mapped
    facts = subspace_facts(TASK, config, results)
    assert [name for name, _ in facts["names"]] == ["tumour", "microenvironment"]
    assert [row["magnification"] for row in facts["rows"]] == ["10x", "20x"]
    for row, tiles in zip(facts["rows"], (16, 64), strict=True):
        assert row["tiles"] == {"median": tiles, "low": tiles, "high": tiles}
        assert row["kept"][0] == {"median": 2, "low": 1, "high": 3}
        assert row["shares"] == [0.5, 0.5]
        assert row["patients"] == 59  # one has no outcome, so is never tested


def test_maps_are_of_patients_from_low_to_high_risk(mapped):
    config, results = mapped
    facts = subspace_facts(TASK, config, results)
    said = [item["caption"] for item in facts["maps"]]
    assert len(said) == 4
    places = [int(text.split()[1]) / int(text.split()[3]) for text in said]
    assert places == sorted(places)
    assert places[0] < 0.1
    assert places[-1] == 1.0
    assert all("Left 10x, right 20x. 10x: 16 tiles, 50% tumour, 50% microenvironment" in text for text in said)
    classes = subspace_facts("subtype", config, results)
    assert classes["score"] == "probability of classical"
    shown = [float(item["caption"].split()[3].rstrip(".")) for item in classes["maps"]]
    assert shown[0] < 0.3 < 0.7 < shown[-1]


def test_a_picture_shows_where_the_tiles_of_each_subspace_are(mapped):
    config, results = mapped
    for item in subspace_facts(TASK, config, results)["maps"]:
        picture, size = pixels(item["uri"])
        assert size < subspace_map.MAX_BYTES
        assert picture.shape == (item["height"], item["width"], 3)
        left = picture[:, : (item["width"] - 16) // 2]
        tumor, other = (np.abs(left - colour).max(axis=2) < 12 for colour in (TUMOR, OTHER))
        assert tumor.sum() > 0.15 * tumor.size
        assert other.sum() > 0.15 * other.size
        assert np.nonzero(tumor)[1].max() <= np.nonzero(other)[1].min()


def grid(side, count):
    return np.array([(side * column, side * row) for row in range(count) for column in range(count)])


def test_tiles_of_little_weight_are_faint(tmp_path):
    weights = np.tile(np.where(np.arange(16) < 8, 1.0, 0.0)[:, None], (1, 2))
    layer = Layer(grid(256, 4), np.tile([1.0, 0.0], (16, 1)), weights)
    picture, _ = pixels(draw_map(tmp_path, [layer])["uri"])
    middle = picture.shape[1] // 2
    upper, lower = picture[picture.shape[0] // 3, middle], picture[2 * picture.shape[0] // 3, middle]
    np.testing.assert_allclose(upper, TUMOR, atol=6)
    np.testing.assert_allclose(lower, 255 + 0.25 * (TUMOR - 255), atol=6)


def test_the_overview_lies_below_where_there_is_one(full_run):
    _, results = full_run
    shares, weights = np.tile([1.0, 0.0], (64, 1)), np.zeros((64, 2))
    layer = Layer(448 + grid(448, 8), shares, weights)
    with_tissue, _ = pixels(draw_map(results / "slides" / "S00", [layer])["uri"])
    without, _ = pixels(draw_map(results / "slides" / "none", [layer])["uri"])
    assert with_tissue.shape == without.shape
    middle = with_tissue.shape[0] // 2
    assert with_tissue[middle, middle].sum() < without[middle, middle].sum() - 30  # tissue
    assert abs(with_tissue[25, middle] - without[25, middle]).max() < 20  # glass


def test_a_picture_of_noise_is_made_small_enough(tmp_path):
    import cv2

    from histill.provenance import write_json

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1200, 1200), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "overview.jpg"), noise)
    write_json(tmp_path / "slide.json", {"width": 12000, "height": 12000})
    shares = rng.random((10_000, 2))
    layers = [Layer(grid(120, 100), shares, rng.random((10_000, 2))) for _ in range(2)]
    found = draw_map(tmp_path, layers)
    picture, size = pixels(found["uri"])
    assert size < subspace_map.MAX_BYTES
    assert picture.shape[1] < 2 * 420


def test_one_subspace_and_tiles_without_places(tmp_path):
    joint = Layer(grid(224, 3), np.ones((9, 1)), np.full((9, 1), 1 / 9))
    picture, _ = pixels(draw_map(tmp_path, [joint])["uri"])
    assert (np.abs(picture - TUMOR).max(axis=2) < 6).any()
    assert not drawable(Layer(np.zeros((9, 2)), joint.assignment, joint.weights))


def test_the_page_holds_the_section(mapped, full_run):
    config, results = mapped
    page = run(config=config, results=results).read_text(encoding="utf-8")
    section = page[page.index('<section id="heatmaps"') :]
    section = section[: section.index("</section>")]
    assert section.count("data:image/png") == 8
    assert 'alt="Tiles of slide S' in section
    assert "two clusters" not in section
    _, without = full_run
    page = run(config=config, results=without).read_text(encoding="utf-8")
    assert "No student with subspaces has predicted yet" in page


def test_a_run_with_a_map_missing_has_none(mapped, tmp_path):
    config, results = mapped
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    (run_folder(copied, TASK, "disentangled", "student", 1, 0) / maps.TILES).unlink()
    assert subspace_facts(TASK, config, copied) is None
    assert subspace_facts(TASK, {**config, "methods": {**config["methods"], "run": ["abmil"]}}, results) is None


def test_the_published_network_says_that_its_subspaces_have_no_fixed_order(mapped):
    import copy

    config, results = mapped
    published = copy.deepcopy(config)
    published["methods"]["disentangled"]["model"]["network"] = "deformable"
    assert not subspace_facts(TASK, published, results)["ordered"]
    page = run(config=published, results=results).read_text(encoding="utf-8")
    assert "two clusters in the order of their density" in page

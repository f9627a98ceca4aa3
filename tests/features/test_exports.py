from __future__ import annotations

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import torch
from typer.testing import CliRunner

from histill import config
from histill.cli import app
from histill.cohort.sheets import Sheets, Slide
from histill.errors import HistillError
from histill.features import imports
from histill.features.exports import export
from histill.features.store import Group, read_group, store_path, write_store
from histill.provenance import Receipt, write_json

MPP, WIDTH, HEIGHT = 0.2527, 41_000, 30_500
ENCODER = "uni"


@pytest.fixture
def run(tmp_path):
    """Results folder of two slides, the second with tiles that could not be read."""
    results = tmp_path / "results"
    receipts = []
    for seed, (slide, broken) in enumerate({"S-1": 0.0, "S.2_b": 0.2}.items()):
        generator = np.random.default_rng(seed)
        groups = {}
        for name, rows in (("10x", 15), ("20x", 60)):
            valid = generator.random(rows) >= broken
            groups[name] = Group(
                x=(generator.normal(size=(rows, 6)) * 100).astype(np.float16) * valid[:, None],
                spatial=generator.integers(0, 30_000, (rows, 2)),
                obs={"tile": np.arange(rows, dtype=np.int32), "valid": valid},
            )
        path = store_path(ENCODER, slide)
        record = write_store(results / path, groups, {"name": ENCODER, "tile_size": 256})
        facts = {"width": WIDTH, "height": HEIGHT, "mpp": {"x": MPP, "y": MPP}}
        write_json(results / "slides" / slide / "slide.json", facts)
        receipts.append(Receipt(slide, "features", "ok", "r", outputs={path: record["digest"]}))
    write_json(results / "config.json", {"tiles": {"overlap": 0.25}})
    receipts.append(Receipt("S-3", "features", "quarantined", "r", reason="no pixels"))
    write_json(results / "receipts" / "features.json", {"slides": [vars(receipt) for receipt in receipts]})
    return results


def stores(results: Path) -> list[Path]:
    return sorted((results / "features" / ENCODER).glob("*.zarr"))


def readable(store: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    group = read_group(store, name)
    return group.x[group.valid], group.spatial[group.valid]


def back(files: dict[str, Path], results: Path, name: str = "imported", mpp: float | None = None) -> list[Receipt]:
    features = {"source": "bags", "encoder": name, "table": None}
    options = config.complete({"results": "r", "cohort": {}, "features": features, "on_error": "fail"})
    slides = {slide: Slide(slide, f"P-{slide}", str(path), mpp) for slide, path in files.items()}
    return imports.run(config=options, results=results, sheets=Sheets(slides=slides))


def assert_same(store: Path, imported: Path, name: str) -> None:
    x, coords = readable(store, name)
    group = read_group(imported, name)
    assert group.x.dtype == np.float16
    np.testing.assert_array_equal(group.x[group.valid].view(np.uint16), x.view(np.uint16))
    np.testing.assert_array_equal(group.spatial[group.valid], coords)


ATTRIBUTES = {
    "10x": {"patch_size_level0": 1013, "target_magnification": 10, "overlap": 64},
    "20x": {"patch_size_level0": 507, "target_magnification": 20, "overlap": 128},
}
COMMON = {"patch_size": 256, "level0_magnification": 40, "level0_width": WIDTH, "level0_height": HEIGHT}


@pytest.mark.parametrize("name", ["10x", "20x"])
def test_trident(run, tmp_path, name):
    done = export(stores(run), to="trident", out=tmp_path / "out", magnification=name)
    folder = tmp_path / "out" / f"{name}_256px_{ATTRIBUTES[name]['overlap']}px_overlap"
    assert sorted(done.files) == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    for store in stores(run):
        x, expected = readable(store, name)
        with (
            h5py.File(folder / "features_uni" / f"{store.stem}.h5") as features,
            h5py.File(folder / "patches" / f"{store.stem}_patches.h5") as patches,
        ):
            assert set(features) == {"features", "coords"}
            assert features["features"].dtype == np.float32
            np.testing.assert_array_equal(features["features"][:], x.astype(np.float32))
            made = {"name": store.stem, "savetodir": str(folder / "features_uni"), "encoder": "uni"}
            assert dict(features["features"].attrs) == made
            for coords in (features["coords"], patches["coords"]):
                assert coords.dtype == np.int64
                np.testing.assert_array_equal(coords[:], expected)
                wanted = {**COMMON, **ATTRIBUTES[name], "name": store.stem, "savetodir": str(folder)}
                assert wanted.items() <= dict(coords.attrs).items()
                assert all(isinstance(coords.attrs[key].item(), int) for key in (*COMMON, *ATTRIBUTES[name]))
    files = {store.stem: folder / "features_uni" / f"{store.stem}.h5" for store in stores(run)}
    receipts = back(files, tmp_path / "again")
    assert [(receipt.state, receipt.warnings) for receipt in receipts] == [("ok", [])] * 2
    again = [tmp_path / "again" / store_path("imported", store.stem) for store in stores(run)]
    for store, imported in zip(stores(run), again, strict=True):
        assert_same(store, imported, name)
    export(again, to="trident", out=tmp_path / "twice")
    for file in files.values():
        other = next((tmp_path / "twice").rglob(f"features_*/{file.name}"))
        with h5py.File(file) as first, h5py.File(other) as second:
            for key in ("features", "coords"):
                np.testing.assert_array_equal(first[key][:], second[key][:])
            settings = [{**item["coords"].attrs, "savetodir": ""} for item in (first, second)]
            assert settings[0] == settings[1]


def test_clam(run, tmp_path):
    export(stores(run), to="clam", out=tmp_path / "out")
    for name in ("10x", "20x"):
        for store in stores(run):
            x, expected = readable(store, name)
            folder = tmp_path / "out" / name
            with (
                h5py.File(folder / "h5_files" / f"{store.stem}.h5") as bag,
                h5py.File(folder / "patches" / f"{store.stem}.h5") as patches,
            ):
                assert set(bag) == {"features", "coords"}
                assert (bag["features"].dtype, bag["coords"].dtype) == (np.float32, np.int32)
                np.testing.assert_array_equal(bag["features"][:], x.astype(np.float32))
                np.testing.assert_array_equal(bag["coords"][:], expected)
                np.testing.assert_array_equal(patches["coords"][:], expected)
                settings = {key: np.asarray(value).tolist() for key, value in patches["coords"].attrs.items()}
            wanted = {
                "patch_size": ATTRIBUTES[name]["patch_size_level0"],
                "patch_level": 0,
                "downsample": [1.0, 1.0],
                "downsampled_level_dim": [WIDTH, HEIGHT],
                "level_dim": [WIDTH, HEIGHT],
                "name": store.stem,
                "save_path": str(folder / "patches"),
            }
            assert wanted.items() <= settings.items()
            tensor = torch.load(folder / "pt_files" / f"{store.stem}.pt", weights_only=True)
            assert tensor.dtype == torch.float32
            np.testing.assert_array_equal(tensor.numpy(), x.astype(np.float32))
        files = {store.stem: tmp_path / "out" / name / "h5_files" / f"{store.stem}.h5" for store in stores(run)}
        receipts = back(files, tmp_path / "again", name=f"clam-{name}")
        assert [receipt.warnings for receipt in receipts] == [[], []]
        for store in stores(run):
            assert_same(store, tmp_path / "again" / store_path(f"clam-{name}", store.stem), name)


@pytest.mark.parametrize("to", ["pt", "h5ad"])
def test_pt_and_h5ad(run, tmp_path, to):
    export(stores(run), to=to, out=tmp_path / "out")
    for name in ("10x", "20x"):
        files = {store.stem: tmp_path / "out" / name / f"{store.stem}.{to}" for store in stores(run)}
        receipts = back(files, tmp_path / "again", name=f"back-{name}")
        assert [receipt.state for receipt in receipts] == ["ok", "ok"]
        for store in stores(run):
            imported = tmp_path / "again" / store_path(f"back-{name}", store.stem)
            assert_same(store, imported, name)
            if to == "h5ad":
                np.testing.assert_array_equal(read_group(imported, name).valid, read_group(store, name).valid)


def test_what_a_pt_file_holds(run, tmp_path):
    export(stores(run), to="pt", out=tmp_path, magnification="20x")
    content = torch.load(tmp_path / "20x" / "S-1.pt", weights_only=True)
    assert content.pop("features").shape == (60, 6)
    assert content.pop("coords").dtype == torch.int64
    assert {**COMMON, **ATTRIBUTES["20x"], "name": "S-1"}.items() <= content.items()


def test_what_an_h5ad_file_holds(run, tmp_path):
    export(stores(run), to="h5ad", out=tmp_path)
    table = anndata.read_h5ad(tmp_path / "20x" / "S.2_b.h5ad")
    group = read_group(stores(run)[1], "20x")
    np.testing.assert_array_equal(table.X, group.x.astype(np.float32))
    np.testing.assert_array_equal(table.obsm["spatial"], group.spatial)
    np.testing.assert_array_equal(table.obs["valid"], group.valid)
    assert json.loads(table.uns["recipe"])["tile_size"] == 256
    assert table.uns["attributes"]["patch_size_level0"] == 507


def test_lazyslide(run, tmp_path):
    export(stores(run), to="lazyslide", out=tmp_path)
    path = tmp_path / "S.2_b.zarr"
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    assert root["spatialdata_attrs"] == {"version": "0.2"}
    for name in ("10x", "20x"):
        group, key = read_group(stores(run)[1], name), f"tiles_{name}"
        table = anndata.read_zarr(path / "tables" / f"uni_{key}")
        link = {"region": key, "region_key": "library_id", "instance_key": "tile_id"}
        assert table.uns["spatialdata_attrs"] == link
        node = json.loads((path / "tables" / f"uni_{key}" / "zarr.json").read_text())["attributes"]
        assert {**link, "spatialdata-encoding-type": "ngff:regions_table"}.items() <= node.items()
        np.testing.assert_array_equal(table.X, group.x)
        shapes = pyarrow.parquet.read_table(path / "shapes" / key / "shapes.parquet")
        assert json.loads(shapes.schema.metadata[b"geo"])["primary_column"] == "geometry"
        assert shapes["tile_id"].to_pylist() == list(table.obs["tile_id"])
        bounds = shapely.bounds(shapely.from_wkb(shapes["geometry"].to_pylist()))
        side = ATTRIBUTES[name]["patch_size_level0"]
        np.testing.assert_array_equal(bounds, np.hstack([group.spatial, group.spatial + side]))
        specification = root["tile_spec"][key]
        assert (specification["height"], specification["mpp"]) == (256, {"10x": 1.0, "20x": 0.5}[name])
        assert specification["stride_width"] == 256 - ATTRIBUTES[name]["overlap"]
        assert specification["base_downsample"] * 256 == pytest.approx(side, abs=0.5)


def test_command(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sheet = tmp_path / "slides.csv"
    sheet.write_text("slide_id,patient_id,path\nS-1,P,x.svs\nS.2_b,P,y.svs\nS-3,P,z.svs\n")
    for path in ("x.svs", "y.svs", "z.svs"):
        (tmp_path / path).write_text("")
    written = tmp_path / "config.yaml"
    written.write_text(f"results: {run}\ncohort: {{slides: {sheet}}}\ntiles: {{overlap: 0.25}}\n")
    command = ["features", "export", "--to", "trident", "--out", str(tmp_path / "out"), "--config", str(written)]
    result = CliRunner().invoke(app, command)
    assert f"holds no features of 'colour-texture'\n  mend: encoders there: {ENCODER}" in str(result.exception)
    result = CliRunner().invoke(app, [*command, "--encoder", ENCODER])
    assert result.exit_code == 0, result.output
    assert "8 files of 2 slides" in result.output
    assert "slide S-3 is left out: quarantined (no pixels)" in result.output
    assert "tiles could not be read and are left out" in result.output
    store = str(stores(run)[0])
    options = ["features", "export", "--to", "pt", "--out", str(tmp_path / "pt"), "--store", store]
    assert CliRunner().invoke(app, [*options, "--magnification", "10x"]).exit_code == 0
    assert [path.name for path in (tmp_path / "pt").rglob("*.pt")] == ["S-1.pt"]
    assert CliRunner().invoke(app, ["features", "verify", store]).exit_code == 0
    (Path(store) / "10x/X/c/0/0").write_bytes(b"")
    checked = CliRunner().invoke(app, ["features", "verify", store, str(stores(run)[1])])
    assert checked.exit_code == 1
    assert "is damaged" in checked.output
    assert "S.2_b.zarr: whole (10x 15 rows, 20x 60 rows)" in checked.output


def test_errors_name_what_is_wrong(run, tmp_path):
    first = stores(run)[0]

    def refused(message, **options):
        with pytest.raises(HistillError, match=message) as caught:
            export(options.pop("store", [first]), **{"to": "trident", "out": tmp_path / "out", **options})
        assert caught.value.mend

    refused("no format 'csv'", to="csv")
    refused("no group '40x'", magnification="40x")
    refused("S-1 has more than one store", store=[first, tmp_path / "other" / "S-1.zarr"])
    (tmp_path / "file").write_text("")
    refused("file: cannot be written", out=tmp_path / "file")
    alone = tmp_path / "alone" / "x" / "S.zarr"
    write_store(alone, {"20x": read_group(first, "20x")}, {"tile_size": 256})
    refused("slide S: patch_size, patch_size_level0, .* is not known", store=[alone])
    refused("level0_width", store=[alone], to="clam")
    export([alone], to="pt", out=tmp_path / "out")
    (first / "20x/X/c/0/0").write_bytes(b"")
    refused(r"S-1\.zarr is damaged")


def test_a_slide_without_tiles(run, tmp_path):
    store = run / store_path(ENCODER, "S-1")
    empty = Group(np.zeros((0, 6), np.float16), np.zeros((0, 2)), {"tile": np.zeros(0, np.int32)})
    write_store(store, {"20x": empty}, {"tile_size": 256})
    for to in ("trident", "clam", "pt", "h5ad", "lazyslide"):
        assert export([store], to=to, out=tmp_path / to).files
    with h5py.File(next((tmp_path / "trident").rglob("features_uni/S-1.h5"))) as handle:
        assert handle["features"].shape == (0, 6)
        assert handle["coords"].shape == (0, 2)


def test_vectors_of_slides(tmp_path):
    store = tmp_path / "features" / "table" / "S.zarr"
    x = np.array([[np.nan, 1e6]], np.float32)
    write_store(store, {"slide": Group(x, np.zeros((1, 2)), var_names=["a", "b/c"])}, {"source": "t.csv"})
    export([store], to="h5ad", out=tmp_path)
    table = anndata.read_h5ad(tmp_path / "slide" / "S.h5ad")
    np.testing.assert_array_equal(table.X, x)
    with pytest.raises(HistillError, match="not known"):
        export([store], to="trident", out=tmp_path)

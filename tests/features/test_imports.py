import h5py
import numpy as np
import pandas as pd
import pytest

from histill import config
from histill.batches import collect
from histill.cohort.sheets import Sheets, Slide
from histill.errors import ConfigError, HistillError, SlideError
from histill.features import imports
from histill.features.store import group_names, read_group, read_recipe


def settings(source, table=None, on_error="quarantine"):
    features = {"source": source, "encoder": "other", "table": None if table is None else str(table)}
    return config.complete({"results": "r", "cohort": {}, "features": features, "on_error": on_error})


def from_table(path, results):
    return imports.run(config=settings("table", path), results=results, sheets=Sheets())


def from_bags(results, paths, *, mpp=None, **options):
    slides = {name: Slide(name, f"P-{name}", str(path), mpp) for name, path in paths.items()}
    return imports.run(config=settings("bags", **options), results=results, sheets=Sheets(slides=slides))


def bag(path, *, rows=5, dim=4, key="features", lead=False, coords=None, x=None, **attributes):
    x = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim) / 8 if x is None else x
    coords = np.arange(2 * rows).reshape(rows, 2) * 256 if coords is None else coords
    with h5py.File(path, "w") as handle:
        handle[key] = x[None] if lead else x
        handle["coords"] = coords[None] if lead else coords
        handle["coords"].attrs.update(attributes)
    return path


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame(
        {"slide_id": [70012, 9], "patient_id": ["P1", "P1"], "area": [1.8e7, np.nan], "count": [3, 4], "f(x)": [0.1, 2]}
    )
    path = tmp_path / "vectors.parquet"
    frame.to_parquet(path)
    return path


def test_table_of_slide_vectors(table, tmp_path):
    receipts = from_table(table, tmp_path)
    assert [receipt.slide for receipt in receipts] == ["70012", "9"]
    assert [receipt.state for receipt in receipts] == ["ok", "ok"]
    assert collect([tmp_path / "receipts" / "features.json"]) == receipts
    assert receipts[1].counts == {"slide": 1, "missing_values": 1}
    assert receipts[1].warnings == ["1 of 3 values are missing"]
    assert receipts[0].info == {"patient_id": "P1", "dim": 3, "encoder": "other", "source": "vectors.parquet"}
    store = tmp_path / "features" / "other" / "70012.zarr"
    assert list(receipts[0].outputs) == ["features/other/70012.zarr"]
    assert group_names(store) == ["slide"]
    group = read_group(store, "slide")
    assert group.x.dtype == np.float32
    np.testing.assert_array_equal(group.x, np.array([[1.8e7, 3, 0.1]], np.float32))
    assert (group.var_names, group.spatial.tolist(), group.valid.tolist()) == (
        ["area", "count", "f(x)"],
        [[0, 0]],
        [True],
    )
    second = read_group(tmp_path / "features" / "other" / "9.zarr", "slide")
    assert np.isnan(second.x[0, 0])
    assert second.valid.all()


def test_csv_and_parquet_give_the_same_vectors(table, tmp_path):
    pd.read_parquet(table).to_csv(tmp_path / "vectors.csv")  # with a running index in front
    from_csv = from_table(tmp_path / "vectors.csv", tmp_path / "a")
    from_parquet = from_table(table, tmp_path / "b")
    assert [receipt.inputs for receipt in from_csv] == [receipt.inputs for receipt in from_parquet]


def test_stores_are_the_same_bytes_each_time(table, tmp_path):
    outputs = [[receipt.outputs for receipt in from_table(table, tmp_path / folder)] for folder in "ab"]
    assert outputs[0] == outputs[1]


def test_only_changed_rows_are_imported_again(table, tmp_path):
    before = from_table(table, tmp_path)
    stores = [tmp_path / "features" / "other" / f"{slide}.zarr" for slide in ("70012", "9")]
    inodes = [store.stat().st_ino for store in stores]
    frame = pd.read_parquet(table)
    frame.loc[1, "count"] = 5
    frame.to_parquet(table)
    after = from_table(table, tmp_path)
    assert [store.stat().st_ino == inode for store, inode in zip(stores, inodes, strict=True)] == [True, False]
    assert after[0] == before[0]
    assert after[1].outputs != before[1].outputs


def test_a_slide_without_any_value_is_quarantined(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("slide_id,patient_id,a,b\nS1,P1,NA,NA\nS2,P2,1,2\n")
    bad, good = from_table(path, tmp_path)
    assert (bad.state, good.state) == ("quarantined", "ok")
    assert "'S1' has no value" in bad.reason


def test_all_problems_of_a_table_at_once(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("slide_id,patient_id,a,stain,b\nS1,P1,1,HE,2\ns1,,1,HE,2\n../S3,P3,1,IHC,1e39\n")
    with pytest.raises(ConfigError) as caught:
        from_table(path, tmp_path)
    assert len(caught.value.problems) == 5
    for part in (
        "column 'stain', row 'S1' holds 'HE'",
        "data row 2: 'patient_id' is empty",
        "data row 2: slide_id 's1' occurs a second time (first in row 1)",
        "'../S3' is no safe file name",
        "slide '../S3': column 'b' is infinite or beyond float32",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("slide,patient_id,a", "no column 'slide_id'"),
        ("slide_id,patient_id", "no feature column"),
        ("slide_id,patient_id,a,a", "'a' occurs more than once"),
    ],
)
def test_bad_header_of_a_table(tmp_path, header, message):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(ConfigError, match=message):
        from_table(path, tmp_path)


@pytest.mark.parametrize("lead", [False, True])
@pytest.mark.parametrize("key", ["features", "feats"])
def test_bag(tmp_path, key, lead):
    path = bag(tmp_path / "a.h5", key=key, lead=lead, target_magnification=10, patch_size=256, name="slide")
    (receipt,) = from_bags(tmp_path, {"a": path})
    assert (receipt.state, receipt.warnings, receipt.counts) == ("ok", [], {"10x": 5, "unreadable": 0})
    assert receipt.info == {"patient_id": "P-a", "dim": 4, "encoder": "other", "source": "a.h5"}
    store = tmp_path / "features" / "other" / "a.zarr"
    group = read_group(store, "10x")
    assert group.x.dtype == np.float16
    np.testing.assert_array_equal(group.x, np.arange(20).reshape(5, 4) / 8)
    np.testing.assert_array_equal(group.spatial, np.arange(10).reshape(5, 2) * 256)
    attributes = {"target_magnification": 10, "patch_size": 256, "name": "slide"}
    assert read_recipe(store, "10x") == {"encoder": "other", "source": "a.h5", "attributes": attributes}


def test_bag_without_a_magnification_is_taken_for_20x(tmp_path):
    (receipt,) = from_bags(tmp_path, {"a": bag(tmp_path / "a.h5")})
    assert receipt.warnings == ["no attribute target_magnification: taken for 20x"]
    assert group_names(tmp_path / "features" / "other" / "a.zarr") == ["20x"]


def test_large_values_keep_float32_and_bad_rows_are_flagged(tmp_path):
    x = np.array([[70000, 1], [np.nan, 2], [3, 4]], np.float32)
    (receipt,) = from_bags(tmp_path, {"a": bag(tmp_path / "a.h5", rows=3, x=x, target_magnification=20)})
    group = read_group(tmp_path / "features" / "other" / "a.zarr", "20x")
    assert group.x.dtype == np.float32
    assert group.x.tolist() == [[70000, 1], [0, 0], [3, 4]]
    assert group.valid.tolist() == [True, False, True]
    assert receipt.warnings == ["1 of 3 rows hold a value that is not finite"]


def test_bag_of_no_rows_is_empty(tmp_path):
    (receipt,) = from_bags(tmp_path, {"a": bag(tmp_path / "a.h5", rows=0, target_magnification=20)})
    assert (receipt.state, receipt.counts["20x"]) == ("empty", 0)
    assert read_group(tmp_path / "features" / "other" / "a.zarr", "20x").x.shape == (0, 4)


def test_micrometres_need_the_mpp_of_the_sheet(tmp_path):
    path = bag(tmp_path / "a.h5", rows=1, coords=np.array([[128.0, 256.1]]), unit="um", target_magnification="20x")
    (receipt,) = from_bags(tmp_path / "without", {"a": path})
    assert receipt.state == "quarantined"
    assert "mpp in the sheet" in receipt.mend
    from_bags(tmp_path / "with", {"a": path}, mpp=0.25)
    group = read_group(tmp_path / "with" / "features" / "other" / "a.zarr", "20x")
    assert group.spatial.tolist() == [[512, 1024]]


def test_bad_bags_are_quarantined_and_the_others_go_on(tmp_path):
    paths = {name: bag(tmp_path / f"{name}.h5", target_magnification=20) for name in ("good", "fine", "length")}
    with h5py.File(paths["length"], "a") as handle:
        del handle["coords"]
        handle["coords"] = np.zeros((4, 2), int)
    paths["dim"] = bag(tmp_path / "dim.h5", dim=7)
    paths["level"] = bag(tmp_path / "level.h5", target_magnification=40)
    paths["fraction"] = bag(tmp_path / "fraction.h5", coords=np.full((5, 2), 0.5))
    paths["nan"] = bag(tmp_path / "nan.h5", x=np.full((5, 4), np.nan))
    paths["text"] = tmp_path / "text.h5"
    paths["text"].write_text("no HDF5")
    paths["keys"] = tmp_path / "keys.h5"
    with h5py.File(paths["keys"], "w") as handle:
        handle["embeddings"] = np.zeros((2, 4))
        handle["positions"] = np.zeros((2, 2))
    paths["absent"] = tmp_path / "absent.h5"
    receipts = {receipt.slide: receipt for receipt in from_bags(tmp_path, paths)}
    assert {name for name, receipt in receipts.items() if receipt.state == "ok"} == {"good", "fine"}
    for name, reason in {
        "length": "shape (5, 4) and 'coords' (4, 2)",
        "dim": "7 dimensions, those of 6 other slides 4",
        "level": "40",
        "fraction": "first: [0.5, 0.5]",
        "nan": "every row",
        "text": "cannot be opened as HDF5",
        "keys": "its keys are embeddings, positions",
        "absent": "absent.h5",
    }.items():
        assert receipts[name].state == "quarantined", name
        assert reason in receipts[name].reason, name
        assert receipts[name].mend, name
        assert receipts[name].outputs == {}, name


def test_on_error_fail_stops(tmp_path):
    (tmp_path / "a.h5").write_text("no HDF5")
    with pytest.raises(SlideError, match="slide a"):
        from_bags(tmp_path, {"a": tmp_path / "a.h5"}, on_error="fail")


def test_bags_are_imported_once(tmp_path, capsys):
    path = bag(tmp_path / "a.h5", target_magnification=20)
    first = from_bags(tmp_path, {"a": path})
    assert from_bags(tmp_path, {"a": path}) == first
    assert "up to date" in capsys.readouterr().out
    bag(path, rows=6, target_magnification=20)
    assert from_bags(tmp_path, {"a": path})[0].counts["20x"] == 6


@pytest.mark.shared_data
def test_vectors_of_tcga_luad(shared_data, tmp_path):
    vectors, features = imports.read_vectors(shared_data / "tcga_luad" / "slides.parquet")
    assert (len(vectors), len(features)) == (478, 607)
    assert sum(int(np.isnan(vector.values).sum()) for vector in vectors) == 144
    assert max(np.nanmax(vector.values) for vector in vectors) == pytest.approx(1.797e7, rel=1e-3)
    frame = pd.read_parquet(shared_data / "tcga_luad" / "slides.parquet")
    few = frame[frame["slide_id"].isin(["84754", "75661"])]
    few.to_parquet(tmp_path / "few.parquet")
    whole, gaps = from_table(tmp_path / "few.parquet", tmp_path)
    assert (whole.counts["missing_values"], gaps.counts["missing_values"]) == (0, 72)
    row = few[few["slide_id"] == "84754"].drop(columns=["slide_id", "patient_id"])
    group = read_group(tmp_path / "features" / "other" / "84754.zarr", "slide")
    np.testing.assert_array_equal(group.x, row.to_numpy())
    assert group.var_names == list(row.columns)


@pytest.mark.shared_data
def test_bag_of_a_published_encoder(shared_data, tmp_path):
    path = shared_data / "features" / "TCGA-AD-6964-01Z-00-DX1_features.h5"
    (receipt,) = from_bags(tmp_path, {"a": path})
    assert receipt.counts == {"20x": 777, "unreadable": 0}
    group = read_group(tmp_path / "features" / "other" / "a.zarr", "20x")
    assert group.x.dtype == np.float16
    with h5py.File(path) as handle:
        np.testing.assert_allclose(group.x, handle["feats"][:], rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(group.spatial, handle["coords"][:])


def test_a_quarantined_vector_keeps_its_patient(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("slide_id,patient_id,a\nS1,P1,\nS2,P2,1\n")
    bad, good = from_table(path, tmp_path)
    assert (bad.state, good.state) == ("quarantined", "ok")
    assert bad.info["patient_id"] == "P1"


def test_a_delimiter_too_many_does_not_shift_the_ids(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("slide_id,patient_id,a\nS1,P1,1,\n")
    with pytest.raises(HistillError, match="the first row has 4 cells"):
        from_table(path, tmp_path)


def test_bags_of_another_magnification_are_quarantined(tmp_path):
    paths = {name: bag(tmp_path / f"{name}.h5", target_magnification=20) for name in ("a", "b")}
    paths["c"] = bag(tmp_path / "c.h5", target_magnification=10)
    receipts = from_bags(tmp_path, paths)
    assert [receipt.state for receipt in receipts] == ["ok", "ok", "quarantined"]
    assert "features are of 10x, those of 2 other slides of 20x" in receipts[2].reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"x": np.zeros((5, 0), np.float32)}, "has no columns"),
        ({"coords": np.full((5, 2), np.nan)}, "a coordinate is not finite"),
        ({"coords": np.full((5, 2), 1e30)}, "beyond any slide"),
        ({"coords": np.full((5, 2), b"x")}, "'coords' is of type |S1, not numbers"),
    ],
)
def test_bags_that_are_no_bags(tmp_path, options, reason):
    (receipt,) = from_bags(tmp_path, {"a": bag(tmp_path / "a.h5", target_magnification=20, **options)})
    assert receipt.state == "quarantined"
    assert reason in receipt.reason


def test_a_bag_that_is_a_folder_or_absent_is_told_plainly(tmp_path):
    folder, absent = from_bags(tmp_path, {"a": tmp_path, "b": tmp_path / "b.h5"})
    assert "is a folder" in folder.reason
    assert "No such file" in absent.reason

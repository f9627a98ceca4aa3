"""The maps of a distilled student: every tile of every test patient once, in its place, with the student's numbers."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from histill.data.bags import BagReader, Instances
from histill.features.store import Group, write_store
from histill.methods import maps

SUBSPACES = ["tumor", "microenvironment"]
SLIDES = {"A": ["a1", "a2"], "B": ["b1"], "C": ["c1"], "D": ["d1"]}
LEVELS = {"10x": 5, "20x": 9}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Stores of 5 and 9 tiles, every fourth not valid; c1 has none at 20x, d1 none at all; b1 is an import."""
    folder = tmp_path_factory.mktemp("stores")
    for number, slide in enumerate(slide for slides in SLIDES.values() for slide in slides):
        groups = {}
        for level, count in LEVELS.items():
            count = 0 if slide == "d1" or (slide, level) == ("c1", "20x") else count
            spatial = np.stack([np.arange(count) * 256, np.full(count, 1000 * number)], axis=1)
            obs = {"valid": np.arange(count) % 4 != 3}
            if slide != "b1":
                obs["tile"] = np.arange(count, dtype=np.int32) + 100
            x = np.full((count, 3), number, np.float16)
            groups[level] = Group(x, spatial, obs)
        write_store(folder / f"{slide}.zarr", groups, {})
    return BagReader(folder, SLIDES)


def output(reader, bag):
    """What a student may say of a bag; weights differ from tile to tile."""
    found = {"assignment": {}, "kept": {}, "attention": {k: {} for k in SUBSPACES}}
    for level in reader.levels:
        count = reader.count(bag, level)
        padded = max(1, count)
        share = torch.linspace(0, 1, padded) * (torch.arange(padded) < count)
        found["assignment"][level] = torch.stack([share, (1 - share) * (torch.arange(padded) < count)], dim=-1)[None]
        for index, k in enumerate(SUBSPACES):
            weight = torch.arange(1.0, padded + 1) ** (index + 1) * (torch.arange(padded) < count)
            found["attention"][k][level] = (weight / weight.sum().clamp(min=1))[None]
        found["kept"][level] = torch.tensor([[2, 1]]) * (count > 0)
    return found


def written(folder, reader, patients, slides):
    instances = Instances.of(reader, patients, slides)
    outputs = [output(instances.bags, name) for name in instances.names]
    maps.write(folder, instances, patients, SUBSPACES, outputs)
    return pq.read_table(folder / maps.TILES).to_pandas(), pq.read_table(folder / maps.TOKENS).to_pandas(), outputs


@pytest.mark.parametrize("slides", ["bag", "mean"])
def test_every_valid_tile_is_there_once_in_its_place(reader, tmp_path, slides):
    tiles, _, _ = written(tmp_path, reader, ["A", "B", "C"], slides)
    assert len(tiles) == sum(reader.count(patient, level) for patient in "ABC" for level in LEVELS)
    assert not tiles.duplicated(["slide_id", "magnification", "x", "y"]).any()
    assert (tiles.patient_id == tiles.slide_id.str[0].str.upper()).all()
    imports = tiles.slide_id == "b1"
    assert (tiles.tile[imports] == -1).all()
    # Rows of the tile table and places go together, across slides and past tiles that are not valid.
    own = tiles[~imports]
    assert (own.x == (own.tile - 100) * 256).all()
    assert (own.y == own.slide_id.map({"a1": 0, "a2": 1000, "c1": 3000})).all()
    assert not ((own.tile - 100) % 4 == 3).any()


@pytest.mark.parametrize("slides", ["bag", "mean"])
def test_numbers_are_the_students(reader, tmp_path, slides):
    tiles, _, outputs = written(tmp_path, reader, ["A", "B", "C"], slides)
    np.testing.assert_allclose(tiles["p:tumor"] + tiles["p:microenvironment"], 1, atol=1e-3)
    sums = tiles.groupby(["patient_id", "magnification"])[[f"w:{k}" for k in SUBSPACES]].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert len(sums) == 5  # C has no tile at 20x
    first = tiles[(tiles.slide_id == "a1") & (tiles.magnification == "20x")]
    share = 1.0 if slides == "bag" else 0.5
    for k in SUBSPACES:
        told = outputs[0]["attention"][k]["20x"][0, : len(first)].numpy()
        np.testing.assert_allclose(first[f"w:{k}"], told * share, rtol=1e-6)
    np.testing.assert_allclose(first["p:tumor"], outputs[0]["assignment"]["20x"][0, : len(first), 0], atol=1e-3)


def test_kept_tokens_are_counted_by_patient(reader, tmp_path):
    _, kept, _ = written(tmp_path, reader, ["A", "C"], "mean")
    rows = kept.set_index(["patient_id", "magnification"])
    assert rows.loc[("A", "20x")].tolist() == [14, 4, 2]  # of two slides
    assert rows.loc[("C", "10x")].tolist() == [4, 2, 1]
    assert rows.loc[("C", "20x")].tolist() == [0, 0, 0]
    assert list(kept.columns) == ["patient_id", "magnification", "tiles", "kept:tumor", "kept:microenvironment"]


def test_files_are_typed_and_cut_by_patient(reader, tmp_path):
    written(tmp_path, reader, ["A", "B", "C", "D"], "bag")
    file = pq.ParquetFile(tmp_path / maps.TILES)
    assert file.num_row_groups == 3
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert types["p:tumor"] == "halffloat"
    assert types["w:tumor"] == "float"
    assert types["tile"] == "int32"
    for number, patient in enumerate("ABC"):
        assert set(file.read_row_group(number)["patient_id"].to_pylist()) == {patient}


def test_no_patient_leaves_empty_tables(reader, tmp_path):
    tiles, kept, _ = written(tmp_path, reader, [], "bag")
    assert len(tiles) == len(kept) == 0
    assert "w:microenvironment" in tiles.columns


def test_prediction_maps_the_test_patients_of_the_first_seed(planted):
    from histill.methods import predict, train
    from histill.methods.checkpoint import Checkpoint
    from histill.provenance import read_json

    results, config, _ = planted(patients=45, epochs=1)
    config["methods"]["run"] = ["disentangled"]
    config["folds"]["n"], config["seeds"] = 3, [0]
    where = {"task": "dx", "config": config, "results": results, "log": lambda _: None}
    for stage in ("teacher", "student"):
        train.run(method="disentangled", stage=stage, **where)
    receipt = predict.run(**where)
    mapped = {}
    for fold in range(3):
        folder = train.run_folder(results, "dx", "disentangled", "student", fold, 0)
        assert f"{folder.relative_to(results)}/{maps.TILES}" in receipt["outputs"]
        tested = pq.read_table(folder / "predictions.parquet").to_pandas()
        tiles = pq.read_table(folder / maps.TILES).to_pandas()
        assert set(tiles.patient_id) == set(tested.patient_id[tested.split == "test"])
        sums = tiles.groupby(["patient_id", "magnification"])["w:tumor"].sum()
        np.testing.assert_allclose(sums, 1, atol=1e-4)
        mapped |= dict.fromkeys(tiles.patient_id, fold)
        assert not (folder.parent / "teacher" / maps.TILES).exists()
    assert len(mapped) == 45
    # A map that is gone is made again, alike; nothing else is.
    folder = train.run_folder(results, "dx", "disentangled", "student", 1, 0)
    (folder / maps.TOKENS).unlink()
    said: list[str] = []
    assert predict.run(**{**where, "log": said.append}) == receipt
    assert len(said) == 1
    assert Checkpoint.read(folder).kind == read_json(folder / "config.json")["kind"] == "student"

"""A bundle is read whole and unchanged, or refused; and only for features made as those it was trained on."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from histill.bundle import manifest
from histill.bundle.bundle import Bundle, mean_features
from histill.bundle.recipe import differences, portable
from histill.data.bags import BagReader
from histill.data.fold import Cohort
from histill.errors import HistillError
from histill.provenance import digest, read_json, write_json
from tests.bundle.conftest import RECIPE, stores


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """A copy of a bundle, to be broken."""
    return Path(shutil.copytree(exported("os", "linear-slide", "train"), tmp_path / "bundle"))


@pytest.fixture
def bags(tmp_path):
    """Function that writes stores of two patients and gives a reader of them."""

    def write(**changes) -> BagReader:
        owners = stores(tmp_path / "other", ["NEW-001", "NEW-002"], seed=3, **changes)
        slides = {patient: [slide for slide in owners if owners[slide] == patient] for patient in owners.values()}
        return BagReader(tmp_path / "other" / "features" / "colour-texture", slides)

    return write


def rewrite(bundle: Path, **changes) -> None:
    """bundle.json with other values, as somebody would write it who knows the format."""
    content = {key: value for key, value in read_json(bundle / "bundle.json").items() if key != "digest"} | changes
    write_json(bundle / "bundle.json", content | {"digest": digest(content)})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = ["reference.safetensors", *(f"members/1/{name}" for name in manifest.MEMBER_FILES)]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(bundle, name):
    flip(bundle / name)
    with pytest.raises(HistillError, match=f"{name} is not the file that was exported"):
        Bundle.read(bundle)


@pytest.mark.parametrize("name", [*FILES, "README.md", "bundle.json"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(HistillError, match=f"{name} is missing|has no {name}"):
        Bundle.read(bundle)


@pytest.mark.parametrize("name", ["model.pkl", ".gitattributes", "members/2/model.safetensors", "members/0/x.py"])
def test_an_unknown_file_is_refused_or_never_looked_at(bundle, name):
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"\x80\x04")
    with pytest.raises(HistillError, match=f"{name} is no file of it"):
        Bundle.read(bundle)
    assert len(Bundle.read(bundle, strict=False).members) == 2
    flip(bundle / "members/0/model.safetensors")
    with pytest.raises(HistillError, match="is not the file"):
        Bundle.read(bundle, strict=False)


def test_links_stay_within_the_folder(bundle, tmp_path):
    model, kept = bundle / "members/0/model.safetensors", tmp_path / "elsewhere.safetensors"
    shutil.move(model, kept)
    model.symlink_to(kept)
    for strict in (True, False):
        with pytest.raises(HistillError, match=r"members/0/model.safetensors is a link that leads elsewhere"):
            Bundle.read(bundle, strict=strict)
    model.unlink()
    model.symlink_to(Path("../1/model.safetensors"))
    with pytest.raises(HistillError, match="is not the file that was exported"):
        Bundle.read(bundle)
    model.unlink()
    shutil.move(kept, model)
    shutil.move(bundle / "members" / "1", tmp_path / "one")
    (bundle / "members" / "1").symlink_to(tmp_path / "one", target_is_directory=True)
    with pytest.raises(HistillError, match="members/1 is a link"):
        Bundle.read(bundle)


def test_what_is_no_file_is_refused(bundle):
    os.mkfifo(bundle / "members" / "0" / "pipe")
    with pytest.raises(HistillError, match="members/0/pipe is no plain file"):
        Bundle.read(bundle, strict=False)


def test_people_may_edit_the_card(bundle):
    (bundle / "README.md").write_text("Trained for the study of last year.")
    Bundle.read(bundle)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "is of format 2; this version of histill reads format 1"),
        ({"format": "1"}, "no description of a bundle: format"),
        ({"levels": {}}, "no description of a bundle: levels"),
        ({"extra": 1}, "no description of a bundle: the whole: .*extra"),
        ({"files": {}}, "does not list the files of a bundle"),
        ({"kind": "linear-rna"}, "knows no model 'linear-rna' that reads slides alone"),
        ({"kind": "abmil"}, "members/0 is no member"),
        ({"levels": {"10x": 16, "20x": 16}, "kind": "none"}, "knows no model 'none'"),
        ({"options": {"slides": {}, "tissue": {}, "tiles": {"size": -1}, "features": {}}}, "tiles.size"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(bundle, changes, says):
    rewrite(bundle, **changes)
    with pytest.raises(HistillError, match=says):
        Bundle.read(bundle)


def test_files_cannot_be_named_outside(bundle):
    files = read_json(bundle / "bundle.json")["files"]
    files["../../etc/passwd"] = files.pop("reference.safetensors")
    rewrite(bundle, files=files)
    with pytest.raises(HistillError, match="does not list the files of a bundle"):
        Bundle.read(bundle)


def test_a_description_edited_by_hand_is_refused(bundle):
    content = read_json(bundle / "bundle.json")
    content["members"][0]["risk"]["median"] += 1
    write_json(bundle / "bundle.json", content)
    with pytest.raises(HistillError, match=r"bundle.json was changed after it was written"):
        Bundle.read(bundle)
    (bundle / "bundle.json").write_text(json.dumps(content).replace('"times": [', '"times": [NaN, '))
    with pytest.raises(HistillError, match=r"bundle.json was changed"):
        Bundle.read(bundle)
    (bundle / "bundle.json").write_text("[]")
    with pytest.raises(HistillError, match="no description of a bundle"):
        Bundle.read(bundle)


def test_members_of_another_task_are_refused(bundle, exported):
    other = exported("dx", "linear-slide", "train")
    files = read_json(bundle / "bundle.json")["files"]
    for name in manifest.MEMBER_FILES:
        shutil.copy(other / "members/1" / name, bundle / "members/1" / name)
        files[f"members/1/{name}"] = read_json(other / "bundle.json")["files"][f"members/1/{name}"]
    rewrite(bundle, files=files)
    with pytest.raises(HistillError, match="members/1 is no member of the bundle"):
        Bundle.read(bundle)


def test_nothing_is_unpickled(exported, bags, monkeypatch, root):
    """Neither in the sources nor when networks predict."""
    import torch

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(np, "load", refuse)
    Bundle.read(exported("os", "msrl", "student")).predict(bags(), device="cpu")
    for path in (root / "src" / "histill" / "bundle").rglob("*.py"):
        text = path.read_text()
        assert not [word for word in ("import pickle", "torch.load", "np.load", "joblib", "exec(") if word in text]


def test_features_of_another_recipe_are_refused(exported, bags):
    bundle = Bundle.read(exported("os", "linear-slide", "train"))
    other = {**RECIPE, "pooling": "mean", "tile_size": 256}
    with pytest.raises(HistillError, match=r'pooling: "model" and "mean"; tile_size: 224 and 256'):
        bundle.check_recipe(other)
    with pytest.raises(HistillError, match=r"of different recipes .*pooling.*\n.*histill predict BUNDLE SLIDE"):
        bundle.predict(bags(recipe=other), device="cpu")
    with pytest.raises(HistillError, match="weights"):
        bundle.check_recipe({**RECIPE, "weights": {"revision": "1" * 40, "sha256": {"secret-weights.bin": "cd" * 32}}})


def test_recipes_agree_by_what_makes_vectors():
    same = {**RECIPE, "licence": "another text", "gated": None, "source": "a paper", "off_recipe": ["said so"]}
    same["weights"] = {"revision": "1" * 40, "sha256": {"pytorch_model.bin": "ab" * 32}}
    assert differences(RECIPE, same) == []
    assert differences(RECIPE, {**RECIPE, "mean": [0.5, 0.5, 0.5]})[0].startswith("mean: ")
    assert differences({"encoder": "a", "source": "x"}, {"encoder": "a", "source": "y", "attributes": {}}) == []
    imported = {"encoder": "a", "source": "SECRET.h5", "attributes": {"patch_size": 256, "slide": "SECRET"}}
    assert portable(imported) == {"encoder": "a", "attributes": {"patch_size": 256}}
    assert differences(imported, {"encoder": "b", "attributes": {"patch_size": 256}}) == ['encoder: "a" and "b"']


def test_a_prediction_depends_on_its_own_slides_alone(exported, bags):
    bundle = Bundle.read(exported("os", "msrl", "student"))
    reader = bags()
    both = bundle.predict(reader, device="cpu")
    names = list(reader.slides)[::-1]
    turned = bundle.predict(BagReader(reader.folder, {name: reader.slides[name] for name in names}), device="cpu")
    assert turned["names"] == names
    np.testing.assert_array_equal(turned["risk"][::-1], both["risk"])
    alone = bundle.predict(BagReader(reader.folder, {"case": reader.slides[names[0]]}), device="cpu")
    np.testing.assert_allclose(alone["risk"][0], turned["risk"][0], rtol=1e-6)
    np.testing.assert_allclose(alone["s"][0], turned["s"][0], rtol=1e-6)


def test_a_bag_without_tiles_or_of_another_width_is_refused(exported, bags):
    from histill.features.store import read_group, write_store

    bundle, reader = Bundle.read(exported("os", "linear-slide", "train")), bags()
    slide = reader.slides["NEW-001"][0]
    groups = {level: read_group(reader.folder / f"{slide}.zarr", level) for level in ("10x", "20x")}
    for group in groups.values():
        group.obs["valid"][:] = False
    write_store(reader.folder / f"{slide}.zarr", groups, RECIPE)
    with pytest.raises(HistillError, match=r"'case' has no valid tile at 10x or 20x.*\n.*histill doctor"):
        bundle.predict(BagReader(reader.folder, {"case": [slide]}), device="cpu")
    for group in groups.values():
        group.x, group.var_names = group.x[:, :7], None
    write_store(reader.folder / f"{slide}.zarr", groups, RECIPE)
    with pytest.raises(HistillError, match="features are of widths"):
        bundle.predict(BagReader(reader.folder, {"case": [slide]}), device="cpu")


def test_distances_are_told_of_real_bags(trained, exported, bags):
    bundle = Bundle.read(exported("os"))
    own = Cohort.read(trained["os"]["results"], "colour-texture").bags
    inside = [bundle.reference.out_of_distribution(mean_features(own, patient)) for patient in own.slides]
    far = bags(shift=3.0)
    outside = [bundle.reference.out_of_distribution(mean_features(far, patient)) for patient in far.slides]
    assert np.mean([one["outside"] for one in inside]) < 0.1
    assert all(one["outside"] and one["percentile"] == 100 for one in outside)

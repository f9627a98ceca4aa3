"""Files of other tools, well formed and not, each as its public description has it."""

from __future__ import annotations

import pickle
import zipfile
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas
import pytest
import torch

from histill.cohort.sheets import Slide
from histill.errors import SlideError
from histill.features import bag_files
from histill.features.bag_files import level, peek, read_bag

X = np.arange(20, dtype=np.float32).reshape(5, 4) / 8
COORDS = np.arange(10).reshape(5, 2) * 512


def slide(path, mpp=None) -> Slide:
    return Slide("s", "p", str(path), mpp)


def hdf5(path, arrays: dict, attributes: dict | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as handle:
        for name, values in arrays.items():
            handle[name] = values
        for name, settings in (attributes or {}).items():
            handle[name].attrs.update(settings)
    return path


def test_atlaspatch(tmp_path):
    five = np.column_stack([COORDS, np.full((5, 2), 512), np.zeros(5)]).astype(np.int32)
    arrays = {"coords": five, "features/uni_v2": X, "passports": np.array([b"x"] * 5)}
    settings = {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20, "wsi_path": "a.svs"}
    path = hdf5(tmp_path / "a.h5", arrays, {"/": settings})
    bag = read_bag(slide(path), "other")
    np.testing.assert_array_equal(bag.x, X)
    np.testing.assert_array_equal(bag.spatial, COORDS)
    assert (bag.magnification, bag.warnings, bag.attributes) == ("20x", [], settings)
    with h5py.File(path, "a") as handle:
        handle["features/conch_v1"] = X[:, :2]
        handle["features/uni_v1"] = X[:, :3]
    for name, dim in (("atlaspatch-conch_v1", 2), ("uni_v1", 3), ("x-uni_v2", 4)):
        assert read_bag(slide(path), name).x.shape == (5, dim)
        assert peek(slide(path), name) == (dim, "20x")
    with pytest.raises(SlideError, match="holds features of conch_v1, uni_v1, uni_v2") as caught:
        read_bag(slide(path), "other")
    assert "features.encoder" in caught.value.mend
    assert peek(slide(path), "other") == (None, None)


@pytest.mark.parametrize(
    ("size", "name", "warning"),
    [((256, 512), "20x", None), ((224, 224), "10x", None), ((256, 224), "10x", "tiles of 1.14 µm per pixel")],
)
def test_stamp(tmp_path, size, name, warning):
    settings = {"unit": "um", "tile_size_um": size[0], "tile_size_px": size[1], "extractor": "ctranspath"}
    path = hdf5(tmp_path / "a.h5", {"feats": X.astype(np.float16), "coords": COORDS * 0.25}, {"/": settings})
    bag = read_bag(slide(path, 0.25), "stamp")
    np.testing.assert_array_equal(bag.x, X)
    np.testing.assert_array_equal(bag.spatial, COORDS)
    assert bag.magnification == name
    assert [part[: len(warning or "")] for part in bag.warnings] == ([warning] if warning else [])


def test_clam_takes_its_settings_from_the_file_beside(tmp_path):
    features = hdf5(tmp_path / "h5_files" / "a.h5", {"features": X, "coords": COORDS})
    assert read_bag(slide(features, 0.25), "clam").warnings == ["no attribute target_magnification: taken for 20x"]
    settings = {"patch_size": 256, "patch_level": 1, "downsample": [4.0, 4.0], "name": "a"}
    hdf5(tmp_path / "patches" / "a.h5", {"coords": COORDS}, {"coords": settings})
    bag = read_bag(slide(features, 0.25), "clam")
    assert (bag.magnification, bag.warnings) == ("10x", [])
    assert bag.attributes == settings
    with pytest.raises(SlideError, match=r"tiles are of 2 µm per pixel"):
        read_bag(slide(features, 0.5), "clam")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors(tmp_path, kind):
    tensor = torch.from_numpy(X).to(kind)
    torch.save(tensor, tmp_path / "bare.pt")
    bag = read_bag(slide(tmp_path / "bare.pt"), "t")
    np.testing.assert_array_equal(bag.x, X)
    assert (bag.spatial == -1).all()
    assert "no coordinates" in bag.warnings[-1]
    content = {"feats": tensor[None], "coords": torch.from_numpy(COORDS), "target_magnification": 10, "skip": [1]}
    torch.save(content, tmp_path / "dict.pth")
    bag = read_bag(slide(tmp_path / "dict.pth"), "t")
    np.testing.assert_array_equal(bag.x, X)
    np.testing.assert_array_equal(bag.spatial, COORDS)
    assert (bag.magnification, bag.attributes) == ("10x", {"target_magnification": 10})
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_bag(slide(tmp_path / "old.pt"), "t").x, X)


def test_a_table_of_lazyslide(tmp_path):
    obs = pandas.DataFrame({"valid": [True, True, False, True, True]}, index=list("01234"))
    uns = {"tile_spec": {"height": 256, "mpp": 0.5, "tissue_name": "tissues"}}
    table = anndata.AnnData(X, obs=obs, obsm={"spatial": COORDS.astype(float)}, uns=uns)
    table.write_h5ad(tmp_path / "a.h5ad")
    bag = read_bag(slide(tmp_path / "a.h5ad"), "lazy")
    np.testing.assert_array_equal(bag.spatial, COORDS)
    np.testing.assert_array_equal(bag.valid, obs["valid"])
    assert not bag.x[2].any()
    assert (bag.magnification, bag.warnings) == ("20x", ["1 of 5 rows are flagged as unreadable in the file"])


def test_magnification_from_settings(tmp_path):
    def told(settings, mpp=None):
        return level(slide("a.h5", mpp), settings)

    assert told({"target_magnification": "20x"}) == ("20x", None)
    assert told({"target_magnification": 10.0, "tile_spec_mpp": 0.5}) == ("10x", None)
    assert told({"tile_spec_mpp": 1.01}) == ("10x", None)
    assert told({"downsample": [1.0, 1.0], "custom_downsample": 2}, 0.25)[0] == "20x"
    for settings in ({}, {"downsample": [1.0]}, {"tile_size_um": "x", "tile_size_px": 2}, {"tile_spec_mpp": 0.0}):
        assert told(settings)[1] == "no attribute target_magnification: taken for 20x"
    for settings in ({"target_magnification": 40}, {"tile_spec_mpp": 0.25}, {"target_magnification": "high"}):
        with pytest.raises(SlideError, match=r"histill's bags are 10x"):
            told(settings)


def refused(path, message, mpp=None):
    with pytest.raises(SlideError, match=message) as caught:
        read_bag(slide(path, mpp), "x")
    assert str(path) in caught.value.message
    assert caught.value.mend
    peek(slide(path, mpp), "x")  # must not raise: it is asked of every slide before any is read


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": X}, "no array 'coords'; its keys are features"),
        ({"coords": COORDS}, "no array 'features' or 'feats'"),
        ({"features": X, "coords": COORDS[:4]}, r"'features' has shape \(5, 4\) and 'coords' \(4, 2\)"),
        ({"features": X, "coords": np.zeros((5, 3), int)}, r"'coords' \(5, 3\)"),
        ({"features": X[0], "coords": COORDS}, "one vector of the whole slide"),
        ({"features": np.zeros((2, 5, 4)), "coords": COORDS}, r"shape \(2, 5, 4\)"),
        ({"features": X > 0, "coords": COORDS}, "'features' is of type bool, not numbers"),
        ({"features/a": X[:, :0], "coords": COORDS}, r"'features/a' has no columns"),
        ({"features/a/b": X, "coords": COORDS}, "features of no encoder"),
        ({"features": X, "coords": COORDS + 0.5}, "are fractions"),
    ],
)
def test_bad_hdf5(tmp_path, arrays, message):
    refused(hdf5(tmp_path / "a.h5", arrays), message)


def test_hdf5_that_points_elsewhere_is_not_followed(tmp_path):
    target = hdf5(tmp_path / "secret.h5", {"features": X})
    path = hdf5(tmp_path / "link.h5", {"coords": COORDS})
    with h5py.File(path, "a") as handle:
        handle["features"] = h5py.ExternalLink(str(target), "features")
    refused(path, "'features' is a link to another file")
    raw = tmp_path / "raw"
    raw.write_bytes(X.tobytes())
    path = hdf5(tmp_path / "external.h5", {"coords": COORDS})
    with h5py.File(path, "a") as handle:
        handle.create_dataset("features", X.shape, X.dtype, external=[(str(raw), 0, X.nbytes)])
    refused(path, "lie in another file")
    path = hdf5(tmp_path / "virtual.h5", {"coords": COORDS})
    with h5py.File(path, "a") as handle:
        layout = h5py.VirtualLayout(X.shape, X.dtype)
        layout[:] = h5py.VirtualSource(str(target), "features", X.shape)
        handle.create_virtual_dataset("features", layout)
    refused(path, "lie in another file")
    path = hdf5(tmp_path / "loop.h5", {"coords": COORDS})
    with h5py.File(path, "a") as handle:
        handle["features"] = h5py.SoftLink("/features")
    refused(path, "is damaged|no array")


def test_declared_sizes_and_bombs(tmp_path, monkeypatch):
    def declared(name, shape, **options):
        path = hdf5(tmp_path / name, {"coords": np.zeros((min(shape[0], 10**6), 2), np.int32)})
        with h5py.File(path, "a") as handle:
            del handle["coords"]
            handle.create_dataset("coords", (shape[0], 2), "i4", chunks=(1024, 2))
            handle.create_dataset("features", shape, "f4", chunks=(1024, shape[1]), **options)
        return path

    refused(declared("huge.h5", (10**9, 4096)), "says it has shape .* GiB")
    refused(declared("unwritten.h5", (10**6, 64)), "but holds 0 bytes")
    path = declared("bomb.h5", (10**5, 256), compression="gzip")
    with h5py.File(path, "a") as handle:
        handle["features"][:] = 1
    refused(path, "but holds [0-9]+ bytes")
    wide = torch.zeros(1).expand(10**9, 1000)
    torch.save(wide, tmp_path / "wide.pt")
    refused(tmp_path / "wide.pt", "says it has shape .* GiB")
    torch.save(torch.zeros(1, dtype=torch.bfloat16).expand(10**5, 1000), tmp_path / "one.pt")
    refused(tmp_path / "one.pt", "but holds 2 bytes")
    torch.save(torch.from_numpy(X), tmp_path / "small.pt")
    with zipfile.ZipFile(tmp_path / "small.pt") as source, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    refused(tmp_path / "packed.pt", "is compressed")
    monkeypatch.setattr(bag_files, "_BOMB_BYTES", 10)
    assert read_bag(slide(hdf5(tmp_path / "fine.h5", {"features": X, "coords": COORDS})), "x").x.shape == (5, 4)


def test_bad_tensor_files(tmp_path):
    def saved(name, content, **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    for old in (True, False):
        refused(saved("object.pt", SimpleNamespace(a=1), _use_new_zipfile_serialization=old), "holds Python objects")
        refused(saved("array.pt", X, _use_new_zipfile_serialization=old), "holds Python objects")
    with open(tmp_path / "pickle.pt", "wb") as file:
        pickle.dump({"features": X}, file)
    refused(tmp_path / "pickle.pt", "holds Python objects|no file of tensors")
    (tmp_path / "text.pt").write_text("hello")
    refused(tmp_path / "text.pt", "no file of tensors")
    (tmp_path / "cut.pt").write_bytes((saved("whole.pt", torch.from_numpy(X))).read_bytes()[:300])
    refused(tmp_path / "cut.pt", "no file of tensors")
    refused(saved("list.pt", [torch.zeros(2, 2)]), "holds a list")
    refused(saved("keys.pt", {"embedding": torch.zeros(2, 2)}), "its keys are embedding")
    refused(saved("coords.pt", {"features": torch.zeros(2, 2), "coords": [1]}), "'coords' is a list")
    refused(saved("sparse.pt", torch.zeros(2, 2).to_sparse()), "no dense tensor")
    refused(saved("complex.pt", torch.zeros(2, 2, dtype=torch.complex64)), "no dense tensor")
    refused(saved("short.pt", {"features": torch.zeros(3, 2), "coords": torch.zeros(2, 2)}), "wanted are")


class Marker:
    def __reduce__(self):
        return print, ("this code must not run",)


def test_a_pickle_does_not_run(tmp_path, capsys):
    torch.save({"features": Marker()}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "holds Python objects")
    assert "must not run" not in capsys.readouterr().out


def test_rows_that_are_not_finite(tmp_path):
    x = X.copy()
    x[1, 2], x[3, 0] = np.nan, -np.inf
    bag = read_bag(slide(hdf5(tmp_path / "a.h5", {"features": x, "coords": COORDS})), "x")
    assert bag.valid.tolist() == [True, False, True, False, True]
    assert not bag.x[[1, 3]].any()
    assert "2 of 5 rows hold a value that is not finite" in bag.warnings


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_off_files(tmp_path, share):
    path = hdf5(
        tmp_path / "a.h5", {"features": np.random.default_rng(0).random((2000, 16)), "coords": np.zeros((2000, 2))}
    )
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "cannot be opened as HDF5|cannot be read|is damaged")

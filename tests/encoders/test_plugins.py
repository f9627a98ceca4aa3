"""Encoders of other packages, found by real entry points."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from histill.encoders import plugins, prefetch, recipes
from histill.encoders.build import build
from histill.errors import HistillError

NIC = Path(__file__).parents[2] / "benchmarks" / "nic_encoder.py"


def keras_forward(file: Path, tiles: np.ndarray) -> np.ndarray:
    """Vectors of uint8 tiles [B, 64, 64, 3] by NumPy alone, layer by layer as the file's own description says."""
    import h5py

    x = tiles.astype(np.float64) / 127.5 - 1
    with h5py.File(file) as handle:
        for layer in json.loads(handle.attrs["model_config"])["config"]["layers"]:
            kind, config, name = layer["class_name"], layer["config"], layer["config"]["name"]
            w = {key.removesuffix(":0"): item[:] for key, item in handle[f"model_weights/{name}"].get(name, {}).items()}
            if kind == "Conv2D":
                assert (config["padding"], config["activation"]) == ("valid", "linear")
                windows = sliding_window_view(x, config["kernel_size"], axis=(1, 2))
                down, right = config["strides"]
                x = np.einsum("byxchw,hwco->byxo", windows[:, ::down, ::right], w["kernel"], optimize=True) + w["bias"]
            elif kind == "LeakyReLU":
                x = np.where(x > 0, x, config["alpha"] * x)
            elif kind == "BatchNormalization":
                deviation = np.sqrt(w["moving_variance"] + config["epsilon"])
                x = (x - w["moving_mean"]) / deviation * w["gamma"] + w["beta"]
            elif kind == "Flatten":
                x = x.reshape(len(x), -1)
            elif kind == "Dense":
                assert config["activation"] == "linear"
                x = x @ w["kernel"] + w["bias"]
            else:
                assert kind == "InputLayer"
    return x


@pytest.mark.shared_data
def test_a_real_pretrained_encoder_through_its_entry_point(install, shared_data, tmp_path):
    install({"nic-encoder": NIC.read_text(encoding="utf-8")})
    file = shared_data / "features" / "nic_encoder_multitask-4.h5"
    recipe = recipes.get("nic-multitask")
    assert recipe.plugin == "nic-encoder 1.0"
    assert recipe.has_weights
    encoder = build(recipe, weights=prefetch.prefetch(recipe, given=file, out=tmp_path / "encoder.json"), device="cpu")

    pictures = sorted((shared_data / "tiles").glob("TCGA-*.jpg"))
    assert len(pictures) > 1
    tiles = []
    for path in pictures:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # about 1 µm per pixel
        tiles += [half[y : y + 64, x : x + 64] for y in (0, 40) for x in (0, 40)]
    tiles = np.stack([*tiles, np.full((64, 64, 3), 245, np.uint8)])
    vectors = encoder.encode(tiles, 1.0)
    assert vectors.shape == (len(tiles), 128)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(encoder.encode(tiles[3:4], 1.0)[0], vectors[3], rtol=1e-3, atol=1e-3)

    np.testing.assert_allclose(vectors, keras_forward(file, tiles), rtol=1e-4, atol=1e-4)

    # Trained to keep what a tile shows: tiles of one picture are nearer to one another than to those of others.
    tissue = vectors[:-1] - vectors[:-1].mean(axis=0)
    cosine = (tissue @ tissue.T) / np.outer(*[np.linalg.norm(tissue, axis=1)] * 2)
    same = np.kron(np.eye(len(tissue) // 4), np.ones((4, 4))).astype(bool) & ~np.eye(len(tissue), dtype=bool)
    assert cosine[same].mean() > cosine[~same & ~np.eye(len(tissue), dtype=bool)].mean()


def test_a_recipe_of_a_plugin_uses_histills_builders(install, tmp_path):
    import torch
    import torchvision

    install(
        {
            "lab-encoders": """
                recipes = {
                    "lab-resnet": {
                        "builder": "torch_file", "file": "lab.pt", "architecture": "resnet18", "dim": 512, "input": 64,
                        "resize": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "ignore": ["^fc[.]"],
                        "mpp": [0.4, 0.6], "licence": "MIT", "source": "a test",
                    }
                }
            """
        }
    )
    network = torchvision.models.resnet18(weights=None).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "lab.pt")
    recipe = recipes.get("lab-resnet")
    encoder = build(recipe, weights=prefetch.prefetch(recipe, given=tmp_path / "lab.pt"), device="cpu")
    tiles = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = network(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 127.5 - 1).numpy()
    np.testing.assert_allclose(encoder.encode(tiles, 0.5), expected, rtol=1e-4, atol=1e-5)
    assert "lab-resnet" in recipes.registry()


GOOD = """
    recipes = {"good": {"builder": "plugin", "dim": 2, "mpp": [0.1, 9], "licence": "MIT", "source": "a test"}}
    class Encoder:
        dim, names = 2, ["a", "b"]
        def encode(self, tiles, mpp):
            return tiles[:, 0, 0, :2].astype("float32")
    def build(recipe, *, weights, device):
        assert weights is None
        return Encoder()
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError"),
        ("recipes = []", "no mapping 'recipes'"),
        (GOOD.replace('"good"', '"uni"'), "encoder 'uni' exists already"),
        (GOOD.replace('"dim": 2', '"dimension": 2').replace("good", "bad"), "unknown field 'dimension'"),
        (GOOD.replace("def build", "def make").replace("good", "bad"), "no function 'build'"),
    ],
)
def test_a_broken_plugin_is_named_and_stops_nobody_else(install, shell, code, message):
    install({"good-one": GOOD, "sad-one": code})
    assert build(recipes.get("good"), device="cpu").encode(np.full((1, 4, 4, 3), 7, np.uint8), 0.5).tolist() == [[7, 7]]
    assert recipes.get("uni").plugin is None
    assert recipes.registry()["good"].plugin == "good-one 1.0"
    with pytest.raises(HistillError) as caught:
        recipes.get("bad")
    assert "plug-in sad-one 1.0 is broken" in caught.value.message
    assert message in caught.value.message
    assert any("sad-one 1.0" in problem for problem in plugins.load().problems)


def test_the_command_line_lists_plugins_and_their_problems(install, shell):
    install({"good-one": GOOD, "sad-one": "1 / 0"})
    listed = shell.run("encoders", "list").stdout
    assert "\ngood " in listed
    assert "problem: plug-in sad-one 1.0 is broken: ZeroDivisionError" in listed
    assert '"plugin": "good-one 1.0"' in shell.run("encoders", "show", "good").stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return Encoder()", "return open('/none')", "cannot build encoder 'good': FileNotFoundError"),
        ("dim, names = 2", "dim, names = 3", r"built no encoder \(dim 2, names, encode\)"),
        ("def encode", "def embed", "built no encoder"),
    ],
)
def test_a_plugin_that_cannot_build_is_named(install, old, new, message):
    assert old in GOOD
    install({"good-one": GOOD.replace(old, new)})
    with pytest.raises(HistillError, match=f"plug-in good-one 1.0 .*{message}|plug-in good-one 1.0 {message}"):
        build(recipes.get("good"), device="cpu")


def test_an_upgraded_plugin_is_another_recipe(install, tmp_path):
    install({"good-one": GOOD})
    before = recipes.get("good")
    folder = tmp_path / "site" / "good_one-1.0.dist-info"
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: good-one\nVersion: 2.0\n")
    plugins.load.cache_clear()
    assert recipes.get("good") != before

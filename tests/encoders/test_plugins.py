"""Encoders of other packages, found by real entry points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from histill.encoders import plugins, prefetch, recipes
from histill.encoders.build import build
from histill.errors import HistillError

# Four strided convolutions and a dense layer, as the file's own description says; Keras stores kernels as
# height, width, input, output, and flattens height, width, channels.
NIC = '''
    """Neural image compression (Tellez et al., IEEE TPAMI 2021): the multi-task encoder."""

    import numpy as np

    recipes = {
        "nic-multitask": {
            "builder": "plugin", "file": "nic_encoder_multitask-4.h5", "dim": 128, "tile": [64], "input": 64,
            "mpp": [0.9, 1.1], "licence": "MIT", "source": "Tellez et al., IEEE TPAMI 2021",
        }
    }

    class Nic:
        dim, names = 128, None

        def __init__(self, path):
            import h5py
            import torch

            with h5py.File(path) as handle:
                weights = {}
                handle["model_weights"].visititems(
                    lambda name, item: weights.update({name.split("/", 1)[1]: torch.from_numpy(item[:])})
                    if isinstance(item, h5py.Dataset) else None
                )
            self.weights = weights

        def encode(self, tiles, mpp):
            import torch
            import torch.nn.functional as F

            w = self.weights
            x = torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2) / 127.5 - 1
            for layer in range(1, 5):
                conv, norm = f"conv2d_{layer}/", f"batch_normalization_{layer}/"
                x = F.conv2d(x, w[conv + "kernel:0"].permute(3, 2, 0, 1), w[conv + "bias:0"], stride=2)
                x = F.leaky_relu(x, 0.2)
                x = F.batch_norm(x, w[norm + "moving_mean:0"], w[norm + "moving_variance:0"], w[norm + "gamma:0"],
                                 w[norm + "beta:0"], eps=1e-3)
            x = x.permute(0, 2, 3, 1).flatten(1) @ w["encoded/kernel:0"] + w["encoded/bias:0"]
            return x.numpy()

    def build(recipe, *, weights, device):
        return Nic(weights.file)
'''


@pytest.mark.shared_data
def test_a_real_pretrained_encoder_through_its_entry_point(install, shared_data, tmp_path):
    import h5py

    install({"nic-encoder": NIC})
    file = shared_data / "features" / "nic_encoder_multitask-4.h5"
    recipe = recipes.get("nic-multitask")
    assert recipe.plugin == "nic-encoder 1.0"
    assert recipe.has_weights
    encoder = build(recipe, weights=prefetch.prefetch(recipe, given=file, out=tmp_path / "encoder.json"), device="cpu")

    pictures = sorted((shared_data / "wsi" / "tiles").glob("*.jpg")) + sorted((shared_data / "tiles").rglob("*.jpg"))
    pictures += sorted((shared_data / "wsi" / "tiles").glob("*tissue-level0*.png"))
    assert pictures
    tiles = []
    for path in pictures[:4]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # about 1 µm per pixel
        tiles += [half[y : y + 64, x : x + 64] for y in (0, 40) for x in (0, 40)]
    tiles = np.stack([*tiles, np.full((64, 64, 3), 245, np.uint8)])
    vectors = encoder.encode(tiles, 1.0)
    assert vectors.shape == (len(tiles), 128)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(encoder.encode(tiles[3:4], 1.0)[0], vectors[3], rtol=1e-3, atol=1e-3)

    # A pixel by hand: the first convolution's first output, from the file alone.
    with h5py.File(file) as handle:
        kernel = handle["model_weights/conv2d_1/conv2d_1/kernel:0"][:]
        bias = handle["model_weights/conv2d_1/conv2d_1/bias:0"][:]
    patch = tiles[0, :3, :3].astype(np.float32) / 127.5 - 1
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(tiles[:1]).permute(0, 3, 1, 2) / 127.5 - 1
    first = F.conv2d(
        x, encoder.weights["conv2d_1/kernel:0"].permute(3, 2, 0, 1), encoder.weights["conv2d_1/bias:0"], stride=2
    )
    np.testing.assert_allclose(first[0, :, 0, 0].numpy(), np.tensordot(patch, kernel, 3) + bias, rtol=1e-4, atol=1e-5)

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

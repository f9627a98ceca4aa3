from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from histill.encoders import prefetch, recipes
from histill.encoders.build import build
from histill.errors import HistillError

transformers = pytest.importorskip("transformers", reason="needs histill[transformers]")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}


def small(name: str, **changes):
    """A recipe of the registry with a small network, and that network with random weights."""
    entry = recipes.get(name)
    arguments = {**SIZES, **{k: v for k, v in entry.arguments.items() if k not in SIZES and k != "intermediate_size"}}
    kind = getattr(transformers, entry.architecture)
    torch.manual_seed(1)
    network = kind(kind.config_class(**arguments)).eval()
    dim = 64 if entry.pooling == "class_and_mean" else 32
    crop = 56 if entry.crop else None
    return replace(entry, arguments=arguments, dim=dim, input=56, resize=56, crop=crop, **changes), network


@pytest.mark.parametrize("name", ["phikon", "phikon-v2", "hibou-b", "midnight-12k"])
def test_vectors_are_those_of_the_library(name, tmp_path):
    recipe, network = small(name)
    network.save_pretrained(tmp_path)
    encoder = build(recipe, weights=prefetch.prefetch(recipe, given=tmp_path), device="cpu")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)
    pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (recipe.mean, recipe.std))
    with torch.no_grad():
        tokens = network((pixels - mean) / std).last_hidden_state
    expected = tokens[:, 0]
    if name == "midnight-12k":
        expected = torch.cat([expected, tokens[:, 1:].mean(dim=1)], dim=1)
    np.testing.assert_allclose(encoder.encode(tiles, 0.5), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_config_beside_the_weights_decides(tmp_path):
    """A repository may hold positions of another picture size than the registry says."""
    recipe, network = small("midnight-12k")
    network.save_pretrained(tmp_path)
    other = replace(recipe, arguments={**recipe.arguments, "image_size": 112})
    encoder = build(other, weights=prefetch.prefetch(other, given=tmp_path / "model.safetensors"), device="cpu")
    assert encoder.model.config.image_size == 56


def test_weights_of_another_network_are_named(tmp_path):
    recipe, network = small("phikon-v2")
    network.save_pretrained(tmp_path)
    files = prefetch.prefetch(recipe, given=tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "model.safetensors")
    first = next(key for key in state if "layernorm.weight" in key)
    save_file(
        {k: v for k, v in state.items() if k != first} | {"odd.key": torch.zeros(1)},
        files.folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(HistillError, match="does not hold the weights of encoder 'phikon-v2'") as caught:
        build(recipe, weights=files, device="cpu")
    assert "missing: layernorm.weight" in caught.value.message
    assert "unexpected: odd.key" in caught.value.message


def test_code_in_the_folder_is_not_run(tmp_path):
    recipe, network = small("hibou-b")
    network.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the repository ran')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    build(recipe, weights=prefetch.prefetch(recipe, given=tmp_path), device="cpu")


def test_a_folder_that_is_no_network_is_named(tmp_path):
    recipe, _ = small("phikon")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(HistillError, match="does not hold encoder 'phikon'"):
        build(recipe, weights=prefetch.prefetch(recipe, given=tmp_path), device="cpu")


def test_without_the_package_its_installation_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(HistillError, match="needs the package transformers") as caught:
        build(recipes.get("phikon"), weights=object(), device="cpu")
    assert caught.value.mend == "pip install 'histill[transformers]'"

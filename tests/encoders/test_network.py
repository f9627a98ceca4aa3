from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from histill.encoders import recipes
from histill.encoders.build import build
from histill.encoders.network import NetworkEncoder, pool, prepare
from histill.errors import HistillError


@pytest.fixture(scope="module")
def encoder() -> NetworkEncoder:
    return build(recipes.get("random-test-vit"), device="cpu")


def tiles(count: int, side: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_vectors_do_not_depend_on_the_batch(encoder):
    batch = tiles(5)
    whole = encoder.encode(batch, 0.5)
    assert whole.shape == (5, 64)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole[2:3], encoder.encode(batch[2:3], 0.5), atol=1e-5)


def test_random_weights_are_fixed(encoder):
    state = torch.random.get_rng_state()
    again = build(recipes.get("random-test-vit"), device="cpu")
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random stream moved"
    np.testing.assert_array_equal(encoder.encode(tiles(2), 0.5), again.encode(tiles(2), 0.5))


def test_tiles_may_be_read_only_and_strided(encoder):
    batch = tiles(2, 448)[:, ::2, ::2]
    batch.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode(batch, 0.5), encoder.encode(np.ascontiguousarray(batch), 0.5))


@pytest.mark.parametrize("name", ["uni", "lunit-s16", "h-optimus-0"])
def test_normalisation_is_the_recipes_formula_to_the_bit(name):
    entry = recipes.get(name)
    pixels = torch.from_numpy(tiles(3, entry.resize)).permute(0, 3, 1, 2)
    start = (entry.resize - entry.input) // 2
    cut = pixels[..., start : start + entry.input, start : start + entry.input]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (entry.mean, entry.std))
    for layout in (torch.channels_last, torch.contiguous_format):
        given = pixels.contiguous(memory_format=layout)
        before = given.clone()
        assert torch.equal(prepare(given, entry), (cut / 255 - mean) / std)
        assert torch.equal(given, before), "the tiles were written to"


def test_convolutional_networks_alone_are_laid_out_channels_last():
    import timm

    def strides(architecture: str) -> tuple[int, ...]:
        encoder = NetworkEncoder(recipes.get("uni"), timm.create_model(architecture, num_classes=0), device="cpu")
        layers = [layer for layer in encoder.model.modules() if isinstance(layer, torch.nn.Conv2d)]
        return layers[0].weight.stride()

    assert strides("mobilenetv3_small_050")[1] == 1
    assert strides("resnet18")[1] == 1
    assert strides("test_vit")[-1] == 1


def recipe(pooling: str, dim: int, prefix: int = 5) -> recipes.EncoderRecipe:
    from dataclasses import replace

    return replace(recipes.get("virchow2"), pooling=pooling, dim=dim, prefix_tokens=prefix)


def test_poolings():
    tokens = torch.randn(2, 5 + 16, 8)
    patches = tokens[:, 5:].mean(dim=1)
    torch.testing.assert_close(pool(tokens, recipe("class", 8)), tokens[:, 0])
    torch.testing.assert_close(pool(tokens, recipe("mean", 8)), patches)
    torch.testing.assert_close(pool(tokens, recipe("class_and_mean", 16)), torch.cat([tokens[:, 0], patches], dim=1))
    torch.testing.assert_close(pool(tokens[:, 0], recipe("model", 8)), tokens[:, 0])
    grid = torch.randn(2, 8, 3, 4)
    torch.testing.assert_close(pool([grid], recipe("average", 8)), grid.flatten(2).mean(dim=2))
    output = SimpleNamespace(last_hidden_state=tokens)  # transformers
    torch.testing.assert_close(pool(output, recipe("class", 8)), tokens[:, 0])
    assert pool(tokens.half(), recipe("mean", 8)).dtype == torch.float32


def test_an_output_that_is_not_the_recipes_is_refused():
    with pytest.raises(HistillError, match="gave 8 values, its recipe says 9"):
        pool(torch.randn(2, 21, 8), recipe("class", 9))
    for output in (torch.randn(2, 8), [torch.randn(1), torch.randn(1)]):
        with pytest.raises(HistillError, match="which pooling 'class' cannot take"):
            pool(output, recipe("class", 8))

from __future__ import annotations

import numpy as np
import pytest
import torch

from histill.encoders import recipes
from histill.encoders.build import build
from histill.encoders.timm_encoder import TimmEncoder, _create
from histill.errors import HistillError


@pytest.fixture(scope="module")
def encoder() -> TimmEncoder:
    return build(recipes.get("random-test-vit"), device="cpu")


def tiles(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def test_vectors_do_not_depend_on_the_batch(encoder):
    batch = tiles(5)
    whole = encoder.encode(batch, 0.5)
    assert whole.shape == (5, 64)
    np.testing.assert_allclose(whole[2:3], encoder.encode(batch[2:3], 0.5), atol=1e-5)


def test_random_weights_are_fixed(encoder):
    state = torch.random.get_rng_state()
    again = build(recipes.get("random-test-vit"), device="cpu")
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random stream moved"
    np.testing.assert_array_equal(encoder.encode(tiles(2), 0.5), again.encode(tiles(2), 0.5))


def test_preprocessing_is_the_librarys_own_to_one_grey_level(encoder):
    from PIL import Image
    from timm.data import create_transform

    own = create_transform(
        (3, 160, 160), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, crop_mode="squash"
    )
    image = tiles(1)[0]
    image = np.asarray(Image.fromarray(image).resize((56, 56)).resize((224, 224), Image.Resampling.BICUBIC))
    theirs = own(Image.fromarray(image))
    ours = encoder.prepare(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0]
    assert (theirs - ours).abs().max() * 0.5 * 255 <= 1.01


def test_class_and_mean_pooling(encoder):
    recipe = recipes.get("virchow2")
    pool = TimmEncoder.pool
    fake = type("Fake", (), {"recipe": recipe, "dim": 2560})()
    tokens = torch.randn(2, 5 + 256, 1280)
    pooled = pool(fake, tokens)
    torch.testing.assert_close(pooled[:, :1280], tokens[:, 0])
    torch.testing.assert_close(pooled[:, 1280:], tokens[:, 5:].mean(dim=1))
    with pytest.raises(HistillError, match="gave 1280 values"):
        pool(fake, tokens[..., :640])


@pytest.mark.parametrize("name", ["uni", "virchow2", "resnet50-imagenet"])
def test_hub_architectures_have_the_stated_output(name):
    """Built on the meta device: no weights, no memory."""
    import timm
    from timm.layers import SwiGLUPacked

    recipe = recipes.get(name)
    layers = {"SwiGLUPacked": SwiGLUPacked, "SiLU": torch.nn.SiLU}
    arguments = {k: layers.get(v, v) if isinstance(v, str) else v for k, v in recipe.arguments.items()}
    with torch.device("meta"):
        model = timm.create_model(recipe.architecture, pretrained=False, **arguments)
        output = model.eval()(torch.empty(1, 3, recipe.input, recipe.input))
    width = output.shape[-1] * (2 if recipe.pooling == "class_and_mean" else 1)
    assert width == recipe.dim


def test_weights_that_cannot_be_had_are_a_clear_error(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(HistillError, match=r"'uni' \(MahmoodLab/UNI\) could not be loaded: no network"):
        _create(recipes.get("uni"))

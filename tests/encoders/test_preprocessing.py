"""What a network is given is what the library of its authors would give it, to within one grey level."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from histill.encoders import recipes, resample
from histill.encoders.network import prepare
from histill.errors import HistillError


def tissue(side: int, seed: int = 0) -> np.ndarray:
    """A tile with edges, texture and both extremes: bicubic overshoots on it."""
    generator = np.random.default_rng(seed)
    image = np.full((side, side, 3), 235, np.uint8)
    for _ in range(120):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        centre = tuple(int(value) for value in generator.integers(0, side, 2))
        cv2.ellipse(
            image, centre, (int(generator.integers(2, 14)), int(generator.integers(2, 9))), 30, 0, 360, colour, -1
        )
    noise = generator.normal(0, 12, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    image[: side // 8, : side // 8] = generator.integers(0, 2, (side // 8, side // 8, 1)) * 255
    return image


def ours(image: np.ndarray, recipe) -> torch.Tensor:
    return prepare(torch.from_numpy(image).permute(2, 0, 1)[None], recipe)[0]


def torchvision_transform(recipe):
    """The transform as model cards write it, on PIL images."""
    from torchvision import transforms as T

    mode = {"bilinear": T.InterpolationMode.BILINEAR, "bicubic": T.InterpolationMode.BICUBIC}[recipe.interpolation]
    crop = [T.CenterCrop(recipe.crop)] if recipe.crop else []
    return T.Compose([T.Resize(recipe.resize, mode), *crop, T.ToTensor(), T.Normalize(recipe.mean, recipe.std)])


FAMILIES = {
    "uni": "resize, bilinear",
    "virchow2": "resize, bicubic",
    "kaiko-b8": "resize and centre crop, mean and deviation of one half",
    "lunit-s8": "resize to 248, crop 224, bicubic, own statistics",
    "prov-gigapath": "resize to 256 bicubic, crop 224",
    "conch-v1": "CLIP's statistics, bicubic, 448 px",
    "conch-v1-5": "bilinear, 448 px",
    "h-optimus-0": "own statistics",
    "hibou-l": "own statistics, crop",
    "dinov3-b": "256 px",
}


@pytest.mark.parametrize("side", [224, 256, 512, 300])
@pytest.mark.parametrize("name", FAMILIES)
def test_within_one_grey_level_of_torchvision_on_pil(name, side):
    recipe = recipes.get(name)
    image = tissue(side)
    theirs = torchvision_transform(recipe)(Image.fromarray(image))
    mine = ours(image, recipe)
    assert mine.shape == theirs.shape == (3, recipe.input, recipe.input)
    grey = (mine - theirs).abs() * torch.tensor(recipe.std).view(3, 1, 1) * 255
    assert grey.max() <= 1.01
    assert grey.mean() < 0.001, "equal but for the version of PIL"


@pytest.mark.parametrize("name", ["uni", "virchow2", "dinov2-b", "dinov3-b"])
def test_within_one_grey_level_of_timm(name):
    from timm.data import create_transform

    recipe = recipes.get(name)
    transform = create_transform(
        (3, recipe.input, recipe.input),
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        crop_pct=1.0,
    )
    image = tissue(384)
    grey = (
        (ours(image, recipe) - transform(Image.fromarray(image))).abs() * torch.tensor(recipe.std).view(3, 1, 1) * 255
    )
    assert grey.max() <= 1.01


def test_within_one_grey_level_of_transformers():
    transformers = pytest.importorskip("transformers", reason="needs histill[transformers]")
    recipe = recipes.get("phikon")
    processor = transformers.ViTImageProcessor(
        size={"height": 224, "width": 224},
        image_mean=recipe.mean,
        image_std=recipe.std,
        resample=Image.Resampling.BILINEAR,
    )
    image = tissue(300)
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(image))["pixel_values"][0]))
    assert ((ours(image, recipe) - theirs).abs() * torch.tensor(recipe.std).view(3, 1, 1) * 255).max() <= 1.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("side", "wanted"), [(256, 224), (300, 224), (512, 448), (224, 248), (224, 448), (1024, 224), (33, 224), (224, 31)]
)
def test_gpus_resize_to_the_bit_as_pil_does(side, wanted, interpolation):
    pixels = torch.stack([torch.from_numpy(tissue(side, seed)).permute(2, 0, 1) for seed in range(3)])
    expected = np.stack(
        [
            np.asarray(
                Image.fromarray(tile.permute(1, 2, 0).numpy()).resize(
                    (wanted,) * 2, Image.Resampling[interpolation.upper()]
                )
            )
            for tile in pixels
        ]
    )
    for own in (resample.in_torch, resample.resize):
        np.testing.assert_array_equal(own(pixels, wanted, interpolation).permute(0, 2, 3, 1).numpy(), expected)


def test_another_interpolation_size_or_statistic_would_be_seen():
    """The tolerance can fail: each of these is off by more than a grey level."""
    recipe, image = recipes.get("prov-gigapath"), tissue(256)
    theirs = torchvision_transform(recipe)(Image.fromarray(image))
    std = torch.tensor(recipe.std).view(3, 1, 1) * 255
    for change in (
        {"interpolation": "bilinear", "resize": 240},
        {"resize": 224, "crop": 224},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
    ):
        wrong = replace(recipe, **change)
        assert ((ours(image, wrong) - theirs).abs() * std).max() > 3, change


def test_a_tile_of_the_right_size_is_not_resampled():
    recipe, image = recipes.get("virchow2"), tissue(224)
    expected = (
        torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor(recipe.mean).view(3, 1, 1)
    ) / torch.tensor(recipe.std).view(3, 1, 1)
    torch.testing.assert_close(ours(image, recipe), expected)


def test_white_stays_white_and_black_black():
    """Bicubic weights are negative in places: nothing may leave the range."""
    recipe = recipes.get("prov-gigapath")
    checks = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((4, 4), int)).astype(np.uint8) * 255
    grey = ours(np.repeat(checks[..., None], 3, axis=2), recipe) * torch.tensor(recipe.std).view(3, 1, 1)
    grey = (grey + torch.tensor(recipe.mean).view(3, 1, 1)) * 255
    assert grey.min() >= -0.001
    assert grey.max() <= 255.001


def test_tiles_that_are_not_square_are_refused():
    with pytest.raises(HistillError, match="300 × 200 px are not square"):
        prepare(torch.zeros(1, 3, 200, 300, dtype=torch.uint8), recipes.get("uni"))

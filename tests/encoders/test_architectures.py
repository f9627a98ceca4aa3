"""Every network of the registry is what its recipe says, without its weights: built on the meta device, no memory."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from histill.encoders import recipes
from histill.encoders.build import create
from histill.encoders.network import pool
from histill.encoders.recipes import EncoderRecipe

NETWORKS = [recipe for recipe in recipes.builtin().values() if recipe.builder != "descriptor"]


@cache
def built(same: tuple) -> tuple[torch.nn.Module, object]:
    """Network and output of a recipe; recipes that differ in pooling alone share them."""
    recipe = next(recipe for recipe in NETWORKS if key(recipe) == same)
    with torch.device("meta"):
        model = create(recipe).eval()
        return model, model(torch.empty(1, 3, recipe.input, recipe.input))


def key(recipe: EncoderRecipe) -> tuple:
    return (recipe.builder, recipe.architecture, str(recipe.arguments), str(recipe.forward), recipe.input)


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda recipe: recipe.name)
def test_network_is_what_its_recipe_says(recipe):
    lacking = recipes.missing_package(recipe)
    if lacking:
        pytest.skip(f"needs {lacking[0]}: {lacking[1]}")
    model, output = built(key(recipe))
    assert pool(output, recipe).shape == (1, recipe.dim)
    million = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert million == pytest.approx(recipe.parameters, rel=0.01)


@pytest.mark.parametrize(
    ("name", "million"),
    [
        # As the authors or the model cards state them, not as built here.
        ("uni", 303), ("uni2-h", 681), ("virchow", 631), ("virchow2", 631), ("prov-gigapath", 1130),
        ("h-optimus-0", 1130), ("h0-mini", 86), ("phikon", 86), ("phikon-v2", 303), ("ctranspath", 27.5),
        ("hibou-b", 86), ("hibou-l", 304), ("midnight-12k", 1140), ("gpfm", 303), ("openmidnight", 1130),
        ("dinov2-g", 1136), ("dinov3-h-plus", 840), ("lunit-s8", 21.7),
    ],
)  # fmt: skip
def test_stated_sizes_are_the_published_ones(name, million):
    assert recipes.get(name).parameters == pytest.approx(million, rel=0.01)


def test_prefix_tokens_are_those_of_the_network():
    for recipe in NETWORKS:
        if recipe.pooling not in ("mean", "class_and_mean") or recipes.missing_package(recipe):
            continue
        model, output = built(key(recipe))
        tokens = getattr(output, "last_hidden_state", output)
        patch = recipe.arguments.get("patch_size") or model.patch_embed.patch_size[0]
        assert tokens.shape[1] == recipe.prefix_tokens + (recipe.input // patch) ** 2, recipe.name

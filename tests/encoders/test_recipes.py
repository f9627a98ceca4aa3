from __future__ import annotations

import pytest

from histill.encoders import recipes
from histill.errors import HistillError


@pytest.mark.parametrize("name", list(recipes.registry()))
def test_every_recipe_is_whole(name):
    recipe = recipes.get(name)
    assert recipe.builder in ("descriptor", "timm")
    assert recipe.dim > 0
    assert recipe.mpp[0] < recipe.mpp[1]
    if recipe.builder == "timm":
        assert recipe.architecture
        assert len(recipe.mean) == len(recipe.std) == 3
        assert (recipe.hub is None) == (recipe.seed is not None)
    if recipe.precision != "float32":
        assert recipe.precision in ("float16", "bfloat16")


def test_an_unknown_encoder_lists_the_known():
    with pytest.raises(HistillError, match="did you mean 'virchow2'"):
        recipes.get("virchow-2")


def test_off_recipe_use_is_refused_unless_allowed():
    options = {"tile_size": 224, "mpps": {"10x": 1.0, "20x": 0.5}}
    with pytest.raises(HistillError, match="10x is 1"):
        recipes.check("uni", **options, allow_off_recipe=False)
    assert recipes.check("uni", **options, allow_off_recipe=True) == [
        "encoder 'uni' is made for 0.45 to 0.55 µm per pixel; 10x is 1"
    ]
    assert recipes.check("virchow2", **options, allow_off_recipe=False) == []
    with pytest.raises(HistillError, match="tiles of 224 px"):
        recipes.check("virchow2", tile_size=256, mpps={}, allow_off_recipe=False)

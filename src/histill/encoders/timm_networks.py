"""Networks of timm."""

from __future__ import annotations

import torch

from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError

_LAYERS = ("mlp_layer", "act_layer")


def create(recipe: EncoderRecipe) -> torch.nn.Module:
    """The network of a recipe without its weights: random ones, fixed where the recipe has a seed."""
    import timm

    arguments = dict(recipe.arguments)
    arguments.update({key: _layer(arguments[key]) for key in _LAYERS if key in arguments})
    if not timm.is_model(recipe.architecture):
        raise HistillError(
            f"encoder '{recipe.name}': timm {timm.__version__} has no architecture '{recipe.architecture}'",
            mend="install a newer timm",
        )
    if recipe.seed is None:
        return timm.create_model(recipe.architecture, pretrained=False, **arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return timm.create_model(recipe.architecture, pretrained=False, **arguments)


def _layer(name: str) -> type[torch.nn.Module]:
    import timm.layers

    return getattr(timm.layers, name, None) or getattr(torch.nn, name)

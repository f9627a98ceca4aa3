"""Networks of torchvision: their classifier is taken off, so that what it read is the vector."""

from __future__ import annotations

import torch

from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError

# The last layer's name differs from family to family.
_CLASSIFIERS = ("fc", "classifier", "heads", "head")


def create(recipe: EncoderRecipe) -> torch.nn.Module:
    """The network of a recipe without weights: [B, 3, H, W] -> [B, D]."""
    import torchvision.models

    if recipe.architecture not in torchvision.models.list_models(module=torchvision.models):
        raise HistillError(
            f"encoder '{recipe.name}': torchvision has no network '{recipe.architecture}' for images",
            mend="name one of torchvision.models, or use builder timm_file",
        )
    model = torchvision.models.get_model(recipe.architecture, weights=None, **recipe.arguments)
    name = next((name for name in _CLASSIFIERS if hasattr(model, name)), None)
    if name is None:
        raise HistillError(
            f"encoder '{recipe.name}': the classifier of '{recipe.architecture}' cannot be told", mend="use timm_file"
        )
    setattr(model, name, torch.nn.Identity())
    return model

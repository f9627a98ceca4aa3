"""Builders: from a recipe to an object that turns tiles into vectors. Only the builder asked for is imported."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

from histill.encoders import plugins
from histill.encoders.prefetch import prefetch
from histill.encoders.recipes import EncoderRecipe
from histill.encoders.weights import WeightFiles
from histill.errors import HistillError

if TYPE_CHECKING:
    import torch

_MODULES = {
    "timm": "timm_networks",
    "timm_file": "timm_networks",
    "torch_file": "torchvision_networks",
    "transformers": "transformers_networks",
    "package": "package_networks",
}
# Architecture of a recipe with builder `composed` -> module, function.
_COMPOSED = {
    "conch-v1": ("conch", "create_v1"),
    "conch-v1-5": ("conch", "create_v1_5"),
    "ctranspath": ("ctranspath", "create"),
    "keep": ("keep", "create"),
}


class Encoder(Protocol):
    """Turns tiles into vectors.

    Attributes
    ----------
    dim
        Length of a vector.
    names
        What each number is called; None numbers them.
    """

    dim: int
    names: list[str] | None

    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, H, W, 3] at `mpp` µm per pixel -> float32 [B, dim]."""
        ...


def build(recipe: EncoderRecipe, *, weights: WeightFiles | None = None, device: str = "auto") -> Encoder:
    """The encoder of a recipe.

    Parameters
    ----------
    weights
        Files of `histill.encoders.prefetch`; without them they are taken from the cache, or fetched.
    device
        torch device, or `auto`.

    Raises
    ------
    HistillError
        When the weights cannot be had or are not the encoder's, or a package is missing.
    """
    if recipe.builder == "descriptor":
        from histill.encoders.colour_texture import ColourTexture

        return ColourTexture()
    if weights is None and recipe.has_weights:
        weights = prefetch(recipe)
    if recipe.builder == "plugin":
        return plugins.build(recipe, weights=weights, device=device)
    from histill.encoders.network import NetworkEncoder

    return NetworkEncoder(recipe, network(recipe, weights), device=device)


def create(recipe: EncoderRecipe) -> torch.nn.Module:
    """The network of a recipe without its weights, on torch's current default device."""
    if recipe.builder == "composed":
        if recipe.architecture not in _COMPOSED:
            raise HistillError(
                f"encoder '{recipe.name}': no architecture '{recipe.architecture}' is composed here",
                mend=f"choose one of: {', '.join(_COMPOSED)}",
            )
        module, function = _COMPOSED[recipe.architecture]
    else:
        module, function = _MODULES[recipe.builder], "create"
    made = getattr(importlib.import_module(f"histill.encoders.{module}"), function)(recipe)
    if recipe.forward:
        from histill.encoders.package_networks import Called

        return Called(made, recipe.forward)
    return made


def network(recipe: EncoderRecipe, weights: WeightFiles | None) -> torch.nn.Module:
    """The network of a recipe, with its weights where it has any."""
    if recipe.builder == "transformers":
        from histill.encoders.transformers_networks import load

        return load(recipe, weights)
    if weights is None:
        return create(recipe)
    from histill.encoders.states import load_into

    made = _blank(recipe)
    load_into(made.network if recipe.forward else made, recipe, weights.file)
    return made


def _blank(recipe: EncoderRecipe) -> torch.nn.Module:
    """The network to load weights into, without drawing numbers first: a billion of them take half a minute.

    Buffers that no file holds (positions, masks) are computed as a network is made, so those are made in full.
    """
    import torch

    with torch.device("meta"):
        made = create(recipe)
    stored = made.state_dict().keys()
    return made if all(name in stored for name, _ in made.named_buffers()) else create(recipe)

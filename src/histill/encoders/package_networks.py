"""Networks that another package registers with timm when it is imported."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from histill.encoders import timm_networks
from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError


class Called(nn.Module):
    """A network with the keyword arguments of its forward pass; the first of several outputs is the vector."""

    def __init__(self, network: nn.Module, arguments: dict[str, Any]):
        super().__init__()
        self.network = network
        self.arguments = arguments

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, D]."""
        output = self.network(pixels, **self.arguments)
        return output[0] if isinstance(output, (tuple, list)) else output


def create(recipe: EncoderRecipe) -> nn.Module:
    """The network of a recipe without weights.

    Raises
    ------
    HistillError
        When the package is not installed, naming how to get it, or fails to import.
    """
    try:
        importlib.import_module(recipe.package)
    except ModuleNotFoundError as error:
        raise HistillError(
            f"encoder '{recipe.name}' needs the package {recipe.package.split('.')[0]}: {error}", mend=recipe.install
        ) from None
    except Exception as error:  # an installed package that this Python or timm is too new for
        raise HistillError(
            f"encoder '{recipe.name}': {recipe.package} cannot be imported: {type(error).__name__}: {error}",
            mend=f"install it again: {recipe.install}",
        ) from error
    return timm_networks.create(recipe)

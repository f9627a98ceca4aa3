"""Networks of transformers, by its own classes alone: code that a repository brings along is never run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from histill.encoders.recipes import EncoderRecipe
from histill.encoders.states import mismatch
from histill.encoders.weights import WeightFiles
from histill.errors import HistillError

# Classes whose pooling layer is random unless it is left out.
_WITHOUT_POOLER = {"ViTModel": {"add_pooling_layer": False}}


def create(recipe: EncoderRecipe) -> torch.nn.Module:
    """The network without weights, of the config in the registry."""
    kind = _class(recipe)
    return kind(kind.config_class(**recipe.arguments), **_WITHOUT_POOLER.get(recipe.architecture, {}))


def load(recipe: EncoderRecipe, files: WeightFiles) -> torch.nn.Module:
    """The network with its weights, by the config that lies beside them.

    Raises
    ------
    HistillError
        When the files are of another network.
    """
    kind = _class(recipe)
    try:
        model, report = kind.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **_WITHOUT_POOLER.get(recipe.architecture, {}),
        )
    except Exception as error:  # of the library, of safetensors or of torch, by what is wrong with the file
        text = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise HistillError(
            f"{files.folder} does not hold encoder '{recipe.name}': {text}", mend="fetch its weights again"
        ) from None
    problems = []
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report.get(what, ()))
        keys = [key for key in keys if what == "mismatched_keys" or not _ignored(recipe, key)]
        if keys:
            problems.append(f"{what.removesuffix('_keys')}: {', '.join(keys[:4])}")
    if problems:
        raise mismatch(recipe, Path(files.folder), problems)
    return model


def _ignored(recipe: EncoderRecipe, key: str) -> bool:
    return any(re.search(pattern, key) for pattern in recipe.ignore)


def _class(recipe: EncoderRecipe) -> Any:
    try:
        import transformers
    except ImportError:
        raise HistillError(
            f"encoder '{recipe.name}' needs the package transformers, which is not installed",
            mend="pip install 'histill[transformers]'",
        ) from None
    kind = getattr(transformers, recipe.architecture, None)
    if kind is None:
        raise HistillError(
            f"encoder '{recipe.name}': transformers {transformers.__version__} has no class {recipe.architecture}",
            mend="pip install --upgrade transformers",
        )
    return kind

"""From files of weights into networks: only tensors are read, and every key must fit."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from histill.encoders.layouts import LAYOUTS
from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError

_NAMED = 4  # keys that an error names
_WRAPPERS = ("state_dict", "model", "teacher")


def load_into(model: torch.nn.Module, recipe: EncoderRecipe, path: Path) -> None:
    """Load a file of weights into a recipe's network, as float32; one on the meta device takes the tensors over.

    Raises
    ------
    HistillError
        When the file holds more than tensors, or its keys or shapes are not those of the network.
    """
    state = LAYOUTS[recipe.layout](read_state(path))
    state = {key: value for key, value in state.items() if not any(re.search(p, key) for p in recipe.ignore)}
    wanted = model.state_dict()
    problems = [
        _named("missing", sorted(wanted.keys() - state.keys())),
        _named("unexpected", sorted(state.keys() - wanted.keys())),
        _named(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
                for key in sorted(wanted.keys() & state.keys())
                if state[key].shape != wanted[key].shape
            ],
        ),
    ]
    if any(problems):
        raise mismatch(recipe, path, problems)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    model.load_state_dict(state, assign=next(iter(wanted.values())).is_meta)


def mismatch(recipe: EncoderRecipe, path: Path, problems: list[str]) -> HistillError:
    """The error of weights that are not those of the recipe's network."""
    return HistillError(
        f"{path} does not hold the weights of encoder '{recipe.name}': keys {'; '.join(filter(None, problems))}",
        mend="name the file that its authors published for this encoder, or fetch it again",
    )


def _named(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{what}: {', '.join(keys[:_NAMED])}{more}"


def _check_stored(path: Path) -> None:
    """torch.save packs, but does not compress: what is compressed may unpack to more than memory holds."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise HistillError(f"{path} is compressed, which torch.save never does", mend="fetch or copy it again")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor of a safetensors file or of a torch file, read as tensors alone and never as a pickle."""
    if not path.is_file():
        raise HistillError(f"{path} does not exist", mend="fetch the weights again: histill encoders prefetch")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Files of torch before 1.6 are no zip archives and cannot be mapped.
        if zipfile.is_zipfile(path):
            _check_stored(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise HistillError(
            f"{path} holds more than tensors, so it is not opened: {str(error).splitlines()[0]}",
            mend="convert it to safetensors where you trust it, and name that file in features.weights",
        ) from None
    except HistillError:
        raise
    except Exception as error:  # both libraries raise many types for what is no file of theirs
        raise HistillError(f"{path} cannot be read as weights: {error}", mend="fetch or copy it again") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise HistillError(f"{path} holds no table of tensors", mend="name the file with the network's state")
    return dict(state)

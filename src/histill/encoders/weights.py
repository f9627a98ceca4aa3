"""Files of an encoder's weights on this machine, and how they are told apart: by their digests, not by their places."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError
from histill.provenance import digest

# What transformers reads of a repository, the safer format first; large networks come in several files.
_TRANSFORMERS = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
_TIMM = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class WeightFiles:
    """Weights of an encoder.

    Attributes
    ----------
    folder
        Where the files lie.
    sha256
        Name below the folder -> digest of the file.
    revision
        Commit of the hub; None for local files.
    """

    folder: Path
    sha256: dict[str, str]
    revision: str | None = None

    @property
    def file(self) -> Path:
        """The file, where there is one."""
        return self.folder / next(iter(self.sha256))

    @property
    def identity(self) -> str:
        """Digest of the content, wherever it lies and however it is called."""
        return digest(sorted(self.sha256.values()))


def choose(recipe: EncoderRecipe, names: Iterable[str]) -> list[str]:
    """The files of a repository or folder that the encoder needs; empty when they are not all there."""
    names = list(names)
    if recipe.builder == "transformers":
        return _choose_transformers(names)
    # Of a path in a repository, a downloaded copy keeps the name alone.
    wanted = (recipe.file, Path(recipe.file).name) if recipe.file else _TIMM
    return next(([name] for name in wanted if name in names), [])


def _choose_transformers(names: list[str]) -> list[str]:
    if "config.json" not in names:
        return []
    for patterns in _TRANSFORMERS:
        found = [sorted(fnmatch.filter(names, pattern)) for pattern in patterns]
        if all(found):
            return ["config.json", *(name for part in found for name in part)]
    return []


def wanted(recipe: EncoderRecipe) -> str:
    """What `choose` looks for, in words."""
    if recipe.builder == "transformers":
        return "config.json and model.safetensors or pytorch_model.bin"
    return recipe.file or " or ".join(_TIMM)


def local(recipe: EncoderRecipe, path: str | Path) -> tuple[Path, list[str]]:
    """Folder and names of weights given by path: a file, or a folder with the names that the repository has.

    Raises
    ------
    HistillError
        When there is no such file, or the folder lacks what the encoder needs.
    """
    path = Path(path)
    if path.is_file() and recipe.builder != "transformers":
        return path.parent, [path.name]
    folder = path.parent if path.is_file() else path
    if not folder.is_dir() or not path.exists():
        raise HistillError(
            f"{path} does not exist",
            mend=f"name the file or folder of the weights of '{recipe.name}' ({wanted(recipe)})",
        )
    names = choose(recipe, (item.name for item in folder.iterdir() if item.is_file()))
    if not names:
        raise HistillError(
            f"folder {folder} does not hold the weights of '{recipe.name}'",
            mend=f"put {wanted(recipe)} there, as its repository has them",
        )
    return folder, names


def sha256(path: Path) -> str:
    """Whole digest of a file, as the hub and `sha256sum` print it."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

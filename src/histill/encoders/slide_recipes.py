"""Slide encoders: what each reads, and whether its code can be had without copying it here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from histill.errors import HistillError

REGISTRY = Path(__file__).with_name("registry_slide.yaml")


@dataclass(frozen=True)
class SlideEncoderRecipe:
    """One entry of `registry_slide.yaml`.

    Attributes
    ----------
    dim
        Length of the slide's vector.
    tile_encoder, tile, mpp
        Encoder (of `registry.yaml`), side in pixels and µm per pixel of the tiles whose vectors it reads.
    code
        `repository` (transformers runs the code that lies in the hub repository, if it is allowed to), `package` (an
        importable package has it) or `none`.
    needs
        Packages that the repository's code imports.
    package, install
        What to import and how to get it.
    """

    name: str
    dim: int
    tile_encoder: str
    tile: int
    mpp: float
    code: str
    licence: str
    gated: bool | None
    source: str
    note: str
    hub: str | None = None
    revision: str | None = None
    needs: tuple[str, ...] = ()
    package: str | None = None
    install: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def registry() -> dict[str, SlideEncoderRecipe]:
    """All slide encoders by name."""
    import yaml

    entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {
        name: SlideEncoderRecipe(name=name, **{**entry, "needs": tuple(entry.get("needs", ()))})
        for name, entry in entries.items()
    }


def load(name: str, *, allow_remote_code: bool = False, folder: str | Path | None = None) -> Any:
    """A slide encoder's network, as its authors' code makes it.

    Parameters
    ----------
    allow_remote_code
        Run the code that lies in the hub repository, with all rights of this process. Only of a pinned commit, or of
        `folder`.
    folder
        A downloaded copy of the repository, in place of the hub's.

    Raises
    ------
    HistillError
        When its code is in no repository, was not allowed to run, or cannot be loaded.
    """
    known = registry()
    if name not in known:
        raise HistillError(f"no slide encoder '{name}'", mend=f"choose one of: {', '.join(known)}")
    recipe = known[name]
    if recipe.code != "repository":
        raise HistillError(
            f"slide encoder '{name}' cannot be loaded from its repository: {recipe.note}",
            mend=recipe.install or "follow the instructions of its repository",
        )
    if not allow_remote_code:
        raise HistillError(
            f"slide encoder '{name}' needs code that lies in {recipe.hub}, which is not run unasked",
            mend="read that code, then call load(..., allow_remote_code=True)",
        )
    if recipe.revision is None and folder is None:
        raise HistillError(
            f"slide encoder '{name}' is pinned to no commit, so its code could change under you",
            mend="download a commit that you have read, and give its folder",
        )
    try:
        from transformers import AutoModel
    except ImportError:
        raise HistillError(
            f"slide encoder '{name}' needs the package transformers", mend="pip install 'histill[transformers]'"
        ) from None
    try:
        return AutoModel.from_pretrained(
            str(folder or recipe.hub),
            revision=None if folder else recipe.revision,
            code_revision=None if folder else recipe.revision,
            trust_remote_code=True,
        ).eval()
    except Exception as error:  # the repository's code may raise anything
        raise HistillError(
            f"slide encoder '{name}' cannot be loaded: {type(error).__name__}: {error}",
            mend=f"it needs the packages {', '.join(recipe.needs)}; {recipe.note}",
        ) from error

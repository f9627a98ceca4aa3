"""An encoder that a run extracts with: recipe, weights, and the stores it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histill import stages
from histill.cohort.sheets import Slide
from histill.encoders import recipes
from histill.encoders.build import Encoder
from histill.encoders.prefetch import for_run
from histill.encoders.recipes import EncoderRecipe
from histill.encoders.weights import WeightFiles
from histill.features import stain
from histill.features.fields import Fields
from histill.features.store import store_path
from histill.features.store_writer import StoreWriter, store_key
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import Receipt, digest


@dataclass(frozen=True)
class Chosen:
    """An encoder of this run.

    Attributes
    ----------
    recipe
        From the registry.
    weights
        Its files; None for an encoder without any.
    off_recipe
        In what it is used otherwise than it was made for.
    stain
        Method of stain normalisation.
    identity
        Digest of recipe and weights.
    described
        What its stores say of how they were made.
    tiling
        Recipe of the stages before, and version of this one.
    """

    recipe: EncoderRecipe
    weights: WeightFiles | None
    off_recipe: list[str]
    stain: str
    identity: str
    described: dict[str, Any]
    tiling: str

    @classmethod
    def of(cls, name: str, given: str | None, config: dict[str, Any], results: Path) -> Chosen:
        """Encoder `name`, with weights of the run's receipt."""
        options, size = config["features"], config["tiles"]["size"]
        asked = {key: options[key] for key in ("allow_off_recipe", "stain_normalisation")}
        off_recipe = recipes.check(name, tile_size=size, mpps=MAGNIFICATIONS, **asked)
        entry = recipes.get(name)
        weights = for_run(entry, given=given, receipt=results / "receipts" / "encoders" / f"{name}.json")
        method = recipes.stain_method(name, options["stain_normalisation"])
        described = {**entry.as_dict(), "off_recipe": off_recipe, "tile_size": size}
        described["stain"] = {"method": method, "target": stain.target(method)}
        described["weights"] = {"revision": weights.revision, "sha256": weights.sha256} if weights else None
        identity = digest([entry.as_dict(), weights.identity if weights else None])
        tiling = digest([stages.recipe("tiles", config), stages.STAGES["features"].version])
        return cls(entry, weights, off_recipe, method, identity, described, tiling)

    @property
    def name(self) -> str:
        return self.recipe.name

    def layouts(self, fields: Fields, encoder: Encoder | None = None) -> dict[str, Any]:
        """Groups of a store; `encoder` knows the names of its features."""
        return fields.layouts(self.recipe.dim, encoder.names if encoder else None)

    def writer(
        self, results: Path, slide: Slide, fields: Fields, inputs: dict[str, Any] | None, encoder: Encoder | None = None
    ) -> StoreWriter:
        """The slide's store, to be written."""
        path = results / store_path(self.name, slide.slide_id)
        return StoreWriter(path, self.described, self.layouts(fields, encoder), inputs=inputs)

    def key(self, fields: Fields, inputs: dict[str, Any], encoder: Encoder) -> str:
        """Key of the store that `writer` would write."""
        return store_key(self.described, self.layouts(fields, encoder), inputs)

    def inputs(self, receipt: Receipt) -> dict[str, Any]:
        """What its store depends on: the slide and how it is tiled and read, but no other encoder of the run."""
        slide = {name: value for name, value in receipt.inputs.items() if not name.startswith("encoder:")}
        return {**slide, "encoder": self.identity, "tiling": self.tiling}

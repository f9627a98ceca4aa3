"""Where a bundle's networks looked on a slide: attention and subspaces of every tile, mean over the members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.data.bags import BagReader
from histill.data.fold import Cohort
from histill.features.store import read_group
from histill.methods.checkpoint import Checkpoint
from histill.methods.predict import each_output
from histill.slides import table
from histill.subspaces import GENES, JOINT

if TYPE_CHECKING:
    from histill.bundle.bundle import Bundle

ATTENTION, SHARE = "attention", "subspace"
RGB = tuple[int, int, int]
# Vermilion, blue, green and purple of Okabe & Ito, told apart with any colour vision.
SUBSPACE_COLOURS: tuple[RGB, ...] = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167))
TOP = 8  # tiles a map
LEAST_TISSUE = 0.25  # of a tile that is shown as a top tile
SPELLED = {"tumor": "tumour"}
UNORDERED = (
    "the subspaces of this network are clusters that it finds anew in every slide: they mean nothing beyond this "
    "slide, and the maps are those of the first model alone"
)


@dataclass(frozen=True)
class TileMap:
    """What one map shows of the tiles of a magnification.

    Attributes
    ----------
    kind
        `attention`: times what the tile would get if all got the same, 0 and more. `subspace`: the part of a tile in
        the subspace, 0 to 1.
    subspace
        Its name; None where the network knows of no subspaces.
    colour
        Of the subspace.
    values
        One a tile, float64 [N].
    """

    kind: str
    subspace: str | None
    colour: RGB
    values: np.ndarray

    @property
    def key(self) -> str:
        """Part of file names: `attention`, `attention-tumor`, `subspace-tumor`."""
        return self.kind if self.subspace is None else f"{self.kind}-{self.subspace}"

    @property
    def title(self) -> str:
        """As pages name it."""
        return self.kind.capitalize() + ("" if self.subspace is None else f": {spelled(self.subspace)}")

    @property
    def unit(self) -> str:
        """What its values are, in words."""
        return "times the even share" if self.kind == ATTENTION else "share of the tile"

    @property
    def top(self) -> float:
        """Upper end of the colour scale: nearly even attention stays pale, and few tiles do not darken all others."""
        if self.kind == SHARE:
            return 1.0
        return max(2.0, float(np.quantile(self.values, 0.99))) if len(self.values) else 2.0


@dataclass(frozen=True)
class Tiles:
    """The tiles of a slide that were encoded, at one magnification.

    Attributes
    ----------
    level
        `10x` or `20x`.
    rows
        Rows in tiles.parquet, int [N].
    boxes
        x, y, width, height in level-0 pixels, int64 [N, 4].
    tissue
        Fraction of tissue [N].
    maps
        None where the network has no attention.
    """

    level: str
    rows: np.ndarray
    boxes: np.ndarray
    tissue: np.ndarray
    maps: list[TileMap] = field(default_factory=list)

    def top(self, chosen: TileMap) -> np.ndarray:
        """Positions of the `TOP` tiles with the highest values of a map, the highest first; equal ones by their row.

        Tiles with little tissue are passed over: glass tells nobody anything. `passed_over` says how many.
        """
        order = np.lexsort((self.rows, -chosen.values))
        return order[self.tissue[order] >= LEAST_TISSUE][:TOP]

    def passed_over(self, chosen: TileMap) -> int:
        """How many of the `TOP` tiles with the highest values have little tissue."""
        return int(np.count_nonzero(self.tissue[np.lexsort((self.rows, -chosen.values))[:TOP]] < LEAST_TISSUE))


@dataclass(frozen=True)
class SlideMaps:
    """Maps of a slide.

    Attributes
    ----------
    levels
        Magnifications, coarse to fine.
    notes
        What must be known to read the maps.
    """

    levels: list[Tiles]
    notes: list[str]

    def each(self) -> Iterator[tuple[Tiles, TileMap]]:
        """All maps, with the tiles they are of."""
        return ((tiles, one) for tiles in self.levels for one in tiles.maps)


def spelled(subspace: str) -> str:
    """A subspace's name as it is shown."""
    return SPELLED.get(subspace, subspace)


def slide_maps(bundle: Bundle, bags: BagReader, slide: str, *, folder: str | Path, device: str = "auto") -> SlideMaps:
    """Maps of one slide, mean over the members of a bundle.

    Parameters
    ----------
    bags
        Reader in which the slide is a bag of its own.
    slide
        Its id.
    folder
        `slides/<slide>` of the work folder, with tiles.parquet.
    """
    columns = table.read(Path(folder) / "tiles.parquet")
    bags = bags.at(bundle.levels)
    levels = [_tiles(bags, slide, level, columns) for level in bags.levels]
    ordered = bundle.members[0].arguments.get("network") != "deformable"
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for member in bundle.members if ordered else bundle.members[:1]:
        if member.arguments:  # what has none is no network
            for key, values in _said(member, bundle.cohort(bags), slide, device):
                found.setdefault(key, []).append(values)
    for tiles in levels:
        tiles.maps.extend(_maps({key: parts for key, parts in found.items() if key[0] == tiles.level}))
    return SlideMaps(levels, [UNORDERED] if found and not ordered else [])


def _tiles(bags: BagReader, slide: str, level: str, columns: table.Columns) -> Tiles:
    """The valid tiles of a bag, in the order of its features."""
    group = read_group(bags.folder / f"{slide}.zarr", level, features=False)
    rows = group.obs["tile"][group.valid].astype(np.int64)
    boxes = np.stack([columns[name][rows] for name in ("x", "y", "width", "height")], axis=1).astype(np.int64)
    return Tiles(level, rows, boxes, columns["tissue"][rows].astype(np.float64))


def _said(
    member: Checkpoint, cohort: Cohort, slide: str, device: str
) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """What a member says of the tiles: (level, kind, subspace) and values [N]; nothing where it has no attention."""
    (output,) = each_output(member, cohort, [slide], device=device)
    attention: dict[str, dict[str, Any]] = output.get("attention", {})
    for index, (subspace, by_level) in enumerate(attention.items()):
        for level, weights in by_level.items():
            count = cohort.bags.count(slide, level)
            if count:
                yield (level, ATTENTION, subspace), _array(weights[0, :count]) * count
                if "assignment" in output and len(attention) > 1:
                    yield (level, SHARE, subspace), _array(output["assignment"][level][0, :count, index])


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)


def _maps(found: dict[tuple[str, str, str], list[np.ndarray]]) -> list[TileMap]:
    """Attention first, then subspaces, each in the order of the network."""
    names = list(dict.fromkeys(subspace for _, _, subspace in found))
    maps = []
    for kind in (ATTENTION, SHARE):
        for (_, own, subspace), parts in found.items():
            if own == kind:
                colour = SUBSPACE_COLOURS[names.index(subspace) % len(SUBSPACE_COLOURS)]
                name = None if subspace in (GENES, JOINT) else subspace
                maps.append(TileMap(kind, name, colour, np.mean(parts, axis=0)))
    return maps

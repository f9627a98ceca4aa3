"""Pictures for papers and slides: heatmaps beside the slide, and the tiles that were attended most."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from histill.bundle.maps import ATTENTION, TOP, SlideMaps, TileMap, Tiles
from histill.bundle.pixels import Pixels, Window, decode
from histill.bundle.raster import raster
from histill.provenance import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 900  # pixels of a panel's longer side
_INCHES, _SCALE = 6.0, 0.15
_STOPS = 17  # of a colour ramp
_OPACITY = 0.75
_WIDE = 1.5  # width over height from which panels stand one above the other
_TILE, _DPI = 190, 120
RGBA = tuple[int, int, int, float]


def ramp(one: TileMap) -> list[RGBA]:
    """Colours of a map from its lowest value to its highest, evenly spaced; low values let the tissue through.

    Attention is viridis, whose order is seen with any colour vision; a subspace is its own colour.
    """
    from matplotlib import colormaps

    steps = np.linspace(0, 1, _STOPS)
    if one.kind == ATTENTION:
        colours = np.rint(255 * colormaps["viridis"](steps)[:, :3]).astype(int).tolist()
        return [(*colour, round(0.2 + 0.8 * step, 3)) for colour, step in zip(colours, steps.tolist(), strict=True)]
    return [(*one.colour, round(0.05 + 0.95 * step, 3)) for step in steps.tolist()]


def scale_bar(um_per_px: float, px: float) -> tuple[float, str]:
    """Length in µm (1, 2 or 5 times a power of ten) of a bar of up to `px` pixels, and its label."""
    most = um_per_px * px
    power = 10.0 ** math.floor(math.log10(most))
    length = max(value * power for value in (1, 2, 5) if value * power <= most)
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"


def write_heatmaps(folder: Path, name: str, maps: SlideMaps, pixels: Pixels, mpp: tuple[float, float]) -> list[str]:
    """Write `attention-<magnification>.png` and `subspace-<magnification>.png`: the slide, and a panel a subspace.

    Parameters
    ----------
    name
        Of the slide's file, for the titles.
    mpp
        (x, y) of level 0.

    Returns
    -------
    The files' names.
    """
    picture = _shrunk(decode(pixels.picture))
    names = []
    for tiles in maps.levels:
        for kind in dict.fromkeys(one.kind for one in tiles.maps):
            shown = [one for one in tiles.maps if one.kind == kind]
            names.append(f"{kind}-{tiles.level}.png")
            _save(folder / names[-1], _heatmaps(name, tiles, shown, picture, pixels.window, mpp))
    return names


def _shrunk(picture: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(picture.shape[:2])
    return picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _save(path: Path, figure: Figure) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_file(path) as part:
        FigureCanvasAgg(figure).print_png(part, pil_kwargs={"compress_level": 3})


def _heatmaps(
    name: str, tiles: Tiles, shown: list[TileMap], picture: np.ndarray, window: Window, mpp: tuple[float, float]
) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    height, width = picture.shape[:2]
    scale = window.width / width, window.height / height
    um_per_px = mpp[0] * scale[0], mpp[1] * scale[1]
    aspect = um_per_px[1] / um_per_px[0]
    figure, panels, legends = _grid(len(shown) + 1, width / (height * aspect))
    for axis in panels:
        axis.imshow(picture, aspect=aspect, interpolation="nearest")
        axis.set_axis_off()
    panels[0].set_title(_plain(name), fontsize=10)
    _draw_scale_bar(panels[0], width, height, um_per_px[0])
    cells = raster(tiles.boxes - np.array([window.x, window.y, 0, 0]))
    for axis, legend, one in zip(panels[1:], legends, shown, strict=True):
        stops = [(red / 255, green / 255, blue / 255, alpha) for red, green, blue, alpha in ramp(one)]
        colours, limits = LinearSegmentedColormap.from_list(one.key, stops), Normalize(0, one.top, clip=True)
        values = np.ma.masked_invalid(cells.paint(one.values, (width, height), scale))
        axis.imshow(values, cmap=colours, norm=limits, alpha=_OPACITY, aspect=aspect, interpolation="nearest")
        axis.set_title(f"{one.title}, {tiles.level}", fontsize=10)
        extend = "max" if one.kind == ATTENTION else "neither"
        figure.colorbar(ScalarMappable(limits, colours), **legend, label=one.unit, extend=extend)
    return figure


def _grid(count: int, ratio: float) -> tuple[Figure, list[Axes], list[dict[str, Any]]]:
    """A figure of `count` panels, and where the scales of all but the first lie (arguments of `colorbar`).

    Panels are of a width over height of `ratio`, side by side, or one above the other where they are wide. Scales have
    cells of their own, so that panels stay in line.
    """
    from matplotlib.figure import Figure

    wide = ratio > _WIDE
    across, down = (_INCHES, max(1.7, _INCHES / ratio)) if ratio > 1 else (_INCHES * ratio, _INCHES)
    size = (across + 1.2, count * (down + 0.4)) if wide else (count * (across + 0.2), down + 1.1)
    figure = Figure(figsize=(max(size[0], 6.0), max(size[1], 3.0)), dpi=_DPI, layout="constrained")
    if wide:
        cells = figure.add_gridspec(count, 2, width_ratios=[across, _SCALE])
    else:
        cells = figure.add_gridspec(2, count, height_ratios=[down, _SCALE])
    places = [((number, 0), (number, 1)) if wide else ((0, number), (1, number)) for number in range(count)]
    panels = [figure.add_subplot(cells[panel]) for panel, _ in places]
    side = "vertical" if wide else "horizontal"
    return figure, panels, [{"cax": figure.add_subplot(cells[own]), "orientation": side} for _, own in places[1:]]


def _plain(name: str) -> str:
    """A file's name for matplotlib, to which dollars begin a formula."""
    return name.replace("$", r"\$")


def _draw_scale_bar(axis: Axes, width: int, height: int, um_per_px: float) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    length, label = scale_bar(um_per_px, width / 4)
    thick, edge = max(2, height // 120), max(8, width // 40)
    bar = Rectangle((edge, height - edge - thick), length / um_per_px, thick, color="black")
    bar.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axis.add_patch(bar)
    text = axis.text(edge, height - edge - 1.8 * thick, label, fontsize=9, va="bottom", color="black")
    text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def wanted_tiles(maps: SlideMaps) -> dict[tuple[str, int], np.ndarray]:
    """(magnification, row) -> box of the tiles that are shown: the `TOP` ones of every map of attention."""
    return {
        (tiles.level, int(tiles.rows[place])): tiles.boxes[place]
        for tiles, one in maps.each()
        if one.kind == ATTENTION
        for place in tiles.top(one)
    }


def passed_over(tiles: Tiles, one: TileMap) -> str:
    """In words, where tiles of glass are among the highest."""
    count = tiles.passed_over(one)
    return f"{count} of the {TOP} highest are less than a quarter tissue and are not shown" if count else ""


def write_top_tiles(path: Path, name: str, maps: SlideMaps, pixels: Pixels, mpp: tuple[float, float]) -> None:
    """Write `top-tiles.png`: a row a map of attention, the highest tile first, with attention and coordinates."""
    from matplotlib.figure import Figure

    shown = [(tiles, one) for tiles, one in maps.each() if one.kind == ATTENTION]
    row, column = _TILE + 84, _TILE + 12
    canvas = np.full((row * len(shown) + 50, column * TOP + 12, 3), 255, np.uint8)
    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def text(x: float, y: float, said: str, size: float, place: str = "left") -> None:
        figure.text(x / width, 1 - y / height, said, fontsize=size, ha=place, va="center")

    text(width / 2, 18, f"{_plain(name)}: most attended tiles", 11, "center")
    for number, (tiles, one) in enumerate(shown):
        top, side = 50 + number * row, tiles.boxes[0, 2] * mpp[0]
        glass = f"; {said}" if (said := passed_over(tiles, one)) else ""
        text(12, top, f"{one.title}, {tiles.level} (tiles of {side:.0f} µm{glass})", 10)
        for rank, place in enumerate(tiles.top(one).tolist()):
            left, (x, y) = 12 + rank * column, tiles.boxes[place, :2].tolist()
            tile = decode(pixels.tiles[tiles.level, int(tiles.rows[place])])
            tile = cv2.resize(tile, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
            canvas[top + 32 : top + 32 + _TILE, left : left + _TILE] = tile
            text(left, top + 22, f"{rank + 1}.  {one.values[place]:.2f}×", 8)
            text(left, top + 42 + _TILE, f"x {x}  y {y}", 7)
    figure.figimage(canvas, zorder=-1)
    _save(path, figure)

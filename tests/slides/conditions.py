"""Conditions that slides come in, painted by `glass`: with tissue (`CONDITIONS`) and without (`BARE`)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from tests.slides.glass import DAB, EOSIN, HAEMATOXYLIN, INKS, Scene


def fat(scene: Scene, where: np.ndarray) -> None:
    """Adipose tissue: membranes 6 µm wide around empty cells of 50 to 120 µm."""
    cell = 85 / scene.mpp
    yy, xx = np.mgrid[: scene.shape[0] : cell, : scene.shape[1] : cell]
    points = np.stack([xx, yy], -1).reshape(-1, 2) + scene.random.uniform(-0.33, 0.33, (xx.size, 2)) * cell
    fine = max(1, round(scene.mpp / 2))  # drawn fine and averaged, so that a membrane thins out as on a scanner
    size = scene.shape[1] * fine, scene.shape[0] * fine
    plane = cv2.Subdiv2D((-10_000, -10_000, size[0] + 20_000, size[1] + 20_000))
    plane.insert((points * fine).astype(np.float32).tolist())
    walls = np.zeros(size[::-1], np.float32)
    facets, _ = plane.getVoronoiFacetList([])
    thick = max(1, round(6 * fine / scene.mpp))
    cv2.polylines(walls, [np.rint(facet).astype(np.int32) for facet in facets], True, 1.0, thick)
    walls = cv2.resize(walls, scene.shape[::-1], interpolation=cv2.INTER_AREA) * where
    scene.density += walls[..., None] * (0.30 * np.array(EOSIN) + 0.06 * np.array(HAEMATOXYLIN)).astype(np.float32)
    scene.truth |= where


def _fatty(scene: Scene) -> None:
    scene.stain(scene.at(0.28, 0.5, 800), {HAEMATOXYLIN: 0.14, EOSIN: 0.20})
    fat(scene, (scene.at(0.45, 0.5, 800) | scene.at(0.78, 0.5, 750)) & ~scene.truth)


def _frozen(scene: Scene) -> None:
    scene.sections(0.9, {HAEMATOXYLIN: 0.20, EOSIN: 0.12})
    holes = (scene.waves(14) > 1.1) & scene.truth  # ice: 20 to 50 µm
    scene.density[holes] *= 0.1
    scene.density += haze(scene, 180, 0.045)


def _deep_haze(scene: Scene) -> None:
    scene.sections(0.6)
    scene.density += haze(scene, 220, 0.10)


def _pale_fat(scene: Scene) -> None:
    fat(scene, scene.at(0.5, 0.5, 1200))
    scene.density *= 0.35


def haze(scene: Scene, um: float, depth: float) -> np.ndarray:
    """A bluish veil that fades around the tissue, density [H, W, 3]."""
    veil = cv2.GaussianBlur(scene.truth.astype(np.float32), (0, 0), um / scene.mpp)
    veil *= depth * (1 + 0.15 * scene.waves(400))
    return veil[..., None] * np.array([1.0, 0.75, 0.25], np.float32)


def _pen(colour: str, *, over: bool, opacity: float = 1.0) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        scene.sections()
        strokes = scene.line((0.52, 0.05), (0.50, 0.95), 220)
        strokes |= scene.line((0.10, 0.45), (0.50, 0.60), 200) if over else scene.ring(0.72, 0.42, 1250, 180)
        scene.ink(strokes, colour, opacity)

    return paint


def _borders(scene: Scene) -> None:
    scene.sections()
    edge = np.ones(scene.shape, bool)
    edge[scene.px(300) : -scene.px(250), scene.px(350) : -scene.px(200)] = False
    scene.fill.append((edge, (0, 0, 0)))


def _blocks(colour: tuple[int, int, int]) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        tint(scene, (1.0, 0.975, 0.93))
        scene.sections()
        height, width = scene.shape
        blocks = np.zeros(scene.shape, bool)
        blocks[: height // 4, width // 2 :] = True
        blocks[-height // 5 :, : width // 3] = True
        blocks[height // 2 :, -width // 8 :] = True
        scene.fill.append((blocks, colour))

    return paint


def _edges(scene: Scene) -> None:
    scene.sections()
    scene.add(scene.line((0.0, 0.06), (1.0, 0.09), 60), (0.34, 0.33, 0.31))
    scene.add(scene.line((0.95, 0.0), (0.93, 1.0), 40), (0.22, 0.21, 0.20))
    scene.add(scene.line((0.0, 0.93), (1.0, 0.93), 15), (0.15, 0.15, 0.14))


def _bubbles(scene: Scene) -> None:
    scene.sections()
    for x, y, radius in ((0.5, 0.15, 450), (0.93, 0.8, 600), (0.1, 0.1, 250), (0.55, 0.85, 300)):
        scene.add(scene.ring(x, y, radius, 40) & ~scene.truth, (0.42, 0.41, 0.40))
        scene.add(scene.ring(x, y, radius - 50, 40) & ~scene.truth, (0.10, 0.10, 0.11))


def _dust(scene: Scene) -> None:
    scene.sections()
    for _ in range(120):
        x, y = scene.random.random(2)
        scene.add(scene.ring(x, y, float(scene.random.uniform(8, 45)), 20), float(scene.random.uniform(0.1, 0.8)))


def tint(scene: Scene, colour: tuple[float, float, float]) -> None:
    scene.lamp *= np.array(colour, np.float32)


def _vignette(scene: Scene) -> None:
    yy, xx = (np.linspace(-1, 1, side, dtype=np.float32) for side in scene.shape)
    away = xx[None, :] ** 2 + yy[:, None] ** 2
    scene.lamp *= 1 - away[..., None] * np.array([0.06, 0.07, 0.095], np.float32)
    scene.sections()


def _lamp(scene: Scene) -> None:
    """From bluish to yellowish glass, left to right."""
    xx = np.linspace(-1, 1, scene.shape[1], dtype=np.float32)[None, :, None]
    scene.lamp *= 0.95 + xx * np.array([0.03, 0.0, -0.045], np.float32)
    scene.sections(0.6)


def _shading(scene: Scene) -> None:
    """Scanner stripes: each 700 µm is darker towards its sides, and joined by a thin line."""
    xx = np.arange(scene.shape[1]) * scene.mpp % 700 / 350 - 1
    scene.lamp *= (1 - 0.05 * xx[None, :, None] ** 2 * np.array([1, 0.95, 1.1])).astype(np.float32)
    scene.lamp[:, :: scene.px(700)] *= 0.93
    scene.lamp[:: scene.px(900)] *= np.array([1.02, 1.0, 0.98], np.float32)
    scene.sections()


def _label(paper: tuple[float, float, float]) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        scene.sections()
        left = scene.shape[1] * 87 // 100
        label = np.zeros(scene.shape, bool)
        label[:, left:] = True
        scene.truth &= ~label
        scene.density[label], scene.lamp[label] = 0, np.array(paper, np.float32) * 245
        text = np.zeros(scene.shape, np.uint8)
        for row in range(1, 12):
            at = left + scene.px(60), row * scene.shape[0] // 12
            cv2.putText(text, "HE 4711", at, cv2.FONT_HERSHEY_SIMPLEX, scene.shape[1] / 900, 1, scene.px(12))
        scene.add(text > 0, 1.2)

    return paint


def _resin(scene: Scene) -> None:
    """Yellow mounting medium along one side."""
    scene.lamp[scene.shape[0] * 9 // 10 :] *= np.array([1.0, 0.96, 0.80], np.float32)
    scene.sections()


def _ihc(negative: float, positive: float) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        scene.sections(1.0, {HAEMATOXYLIN: negative})
        brown = (scene.waves(90) > 0.8) & scene.truth
        scene.stain(brown, {DAB: positive})

    return paint


def _cores(scene: Scene) -> None:
    for x in (0.14, 0.38, 0.62, 0.86):
        for y in (0.2, 0.5, 0.8):
            strength = float(scene.random.uniform(0.4, 1.3))
            scene.stain(scene.at(x, y, 300, rough=0.1), {HAEMATOXYLIN: 0.14, EOSIN: 0.16}, strength)


def _needle(scene: Scene) -> None:
    for start, end in (((0.05, 0.2), (0.6, 0.35)), ((0.3, 0.75), (0.95, 0.6))):
        scene.stain(scene.line(start, end, 450) & (scene.waves(300) > -1.8), {HAEMATOXYLIN: 0.12, EOSIN: 0.14})


def _border_touching(scene: Scene) -> None:
    for x, y in ((0.0, 0.4), (0.75, 1.0), (0.9, 0.0)):
        scene.stain(scene.at(x, y, 1100), {HAEMATOXYLIN: 0.14, EOSIN: 0.20})


def _covered(strength: float) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        scene.stain(np.ones(scene.shape, bool), {HAEMATOXYLIN: 0.14, EOSIN: 0.20}, strength)

    return paint


def _holed(scene: Scene) -> None:
    scene.sections()
    lumens = scene.at(0.30, 0.5, 300) | scene.at(0.70, 0.42, 200)
    scene.density[lumens] = 0
    scene.truth &= ~lumens


def _jpeg(scene: Scene) -> None:
    scene.sections(0.5)
    scene.noise, scene.quality = 4.0, 30


def _tinted(colour: tuple[float, float, float], strength: float = 0.6) -> Callable[[Scene], None]:
    def paint(scene: Scene) -> None:
        tint(scene, colour)
        scene.sections(strength)

    return paint


def _all_at_once(scene: Scene) -> None:
    """Pale tissue on yellowish, uneven glass, with dust, pen, bubbles and a black border."""
    tint(scene, (1.0, 0.98, 0.93))
    _vignette(scene)
    scene.density *= 0.5
    scene.add(scene.ring(0.5, 0.15, 400, 40), 0.4)
    scene.ink(scene.line((0.52, 0.3), (0.50, 0.95), 220), "green")
    edge = np.zeros(scene.shape, bool)
    edge[: scene.px(250)] = True
    scene.fill.append((edge, (2, 2, 2)))


CONDITIONS: dict[str, Callable[[Scene], None]] = {
    "H&E": Scene.sections,
    "pale": lambda scene: scene.sections(0.35),
    "faint": lambda scene: scene.sections(0.16),
    "pale and smooth": lambda scene: scene.sections(0.25, texture=0.3),
    "fatty": _fatty,
    "fat alone, pale": _pale_fat,
    "frozen, haze, ice": _frozen,
    "deep haze": _deep_haze,
    "IHC": _ihc(0.15, 0.5),
    "IHC, weak counterstain": _ihc(0.05, 0.35),
    "IHC, negative, weak": lambda scene: scene.sections(1.0, {HAEMATOXYLIN: 0.06}),
    **{f"{name} pen beside": _pen(name, over=False) for name in INKS},
    **{f"{name} pen over": _pen(name, over=True) for name in INKS},
    **{f"thin {name} pen over": _pen(name, over=True, opacity=0.45) for name in INKS},
    "black border": _borders,
    "black blocks": _blocks((0, 0, 0)),
    "white blocks": _blocks((255, 255, 255)),
    "coverslip edges": _edges,
    "bubbles": _bubbles,
    "dust": _dust,
    "vignette": _vignette,
    "lamp gradient": _lamp,
    "stripes, stitching": _shading,
    "yellowish glass": _tinted((1.0, 0.97, 0.86)),
    "bluish glass": _tinted((0.92, 0.97, 1.0)),
    "pale, yellowish glass": _tinted((1.0, 0.97, 0.88), 0.3),
    "JPEG 30": _jpeg,
    "yellow resin": _resin,
    "white label": _label((1.0, 1.0, 1.0)),
    "yellow label": _label((1.0, 0.93, 0.5)),
    "pink label": _label((0.95, 0.65, 0.75)),
    "cores": _cores,
    "needle biopsy": _needle,
    "touching the border": _border_touching,
    "covered": _covered(1.0),
    "covered, pale": _covered(0.35),
    "holes": _holed,
    "all at once": _all_at_once,
}


def _empty(*layers: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """The glass and artefacts of a condition without its tissue."""

    def paint(scene: Scene) -> None:
        scene.sections = lambda *_, **__: None  # type: ignore[method-assign]
        for layer in layers:
            layer(scene)

    return paint


# No tissue at all.
BARE: dict[str, Callable[[Scene], None]] = {
    "clean": lambda scene: None,
    "noisy": _empty(_jpeg),
    "tinted, vignette": _empty(_tinted((1.0, 0.97, 0.86)), _vignette),
    "lamp gradient": _empty(_lamp),
    "stripes": _empty(_shading),
    "bubbles, dust, edges": _empty(_bubbles, _dust, _edges),
    "white blocks": _empty(_blocks((255, 255, 255))),
    "black border": _empty(_borders),
    "pen": _empty(_pen("blue", over=False), _pen("red", over=True), _pen("black", over=True)),
}

"""One system on one slide in a fresh process; prints one line of JSON. Run by slides.py, in each system's own Python.

It stands alone and needs nothing but the system it names, NumPy and OpenCV. The clock starts before the first import of
the system. What is timed is what the system's own documentation shows: open, find tissue, lay tiles of 224 px at 0.5 µm
per pixel over it, at least a quarter of a tile in tissue. The mask is written after the clock has stopped.
"""

import json
import os
import resource
import sys
import tempfile
from importlib.metadata import version

MPP = 8.0  # of the masks that are compared
TILE, TILE_MPP, LEAST_TISSUE = 224, 0.5, 0.25


class Clock:
    """Processor seconds since the last call, by name, children included: what a quiet core would take."""

    def __init__(self):
        self.steps, self.last = {}, sum(os.times()[:4])

    def stop(self, name):
        now = sum(os.times()[:4])
        self.steps[name], self.last = now - self.last, now


def peak_mb():
    """The larger of this process and its largest child."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def filled(polygons, dimensions, mpp):
    """Polygons (exterior and interior rings, level-0 pixels) as uint8 [H, W] at 8 µm per pixel."""
    import cv2
    import numpy as np

    size = [max(1, round(side * mpp / MPP)) for side in dimensions]
    mask = np.zeros((size[1], size[0]), np.uint8)
    scale = np.array(size) / dimensions
    for polygon in polygons:
        rings = [np.rint(np.asarray(ring) * scale - 0.5).astype(np.int32) for ring in polygon]
        cv2.fillPoly(mask, rings, 1)
    return mask


def histill(slide, clock, mpp):
    from histill.cohort.sheets import Slide
    from histill.config import complete
    from histill.slides import inspect, segment, tile

    clock.stop("import")
    with tempfile.TemporaryDirectory() as results:
        config = complete({"results": results, "cohort": {}})
        sheet = [Slide("s", "p", slide)]
        for stage in (inspect, segment, tile):
            receipt = stage.run(sheet, config=config, results=results)[0]
            if receipt.state == "quarantined":
                sys.exit(f"{stage.STAGE}: {receipt.reason}")
            clock.stop(stage.STAGE)
        memory = peak_mb()
        with open(f"{results}/slides/s/slide.json") as file:
            facts = json.load(file)
        with open(f"{results}/slides/s/tissue.geojson") as file:
            rings = [feature["geometry"]["coordinates"] for feature in json.load(file)["features"]]
    tiles = {name: int(receipt.counts.get(f"kept_{name}", 0)) for name in ("20x", "10x")}
    mask = filled(rings, (facts["width"], facts["height"]), facts["mpp"]["x"])
    found = {"tiles": tiles, "memory_mb": memory, "version": version("histill"), "mpp": facts["mpp"]["x"]}
    return found, mask


def lazyslide(slide, clock, mpp):
    import lazyslide as zs
    from wsidata import open_wsi

    clock.stop("import")
    wsi = open_wsi(slide)
    clock.stop("open")
    zs.pp.find_tissues(wsi)
    clock.stop("tissue")
    zs.pp.tile_tissues(wsi, TILE, mpp=TILE_MPP, background_fraction=1 - LEAST_TISSUE)
    clock.stop("tiles")
    memory = peak_mb()
    shapes = wsi.shapes["tissues"].geometry
    rings = [[one.exterior.coords, *(hole.coords for hole in one.interiors)] for one in shapes]
    height, width = wsi.properties.shape
    mask = filled(rings, (width, height), wsi.properties.mpp)
    return {"tiles": {"20x": len(wsi.shapes["tiles"])}, "memory_mb": memory, "version": version("lazyslide")}, mask


def tiatoolbox(slide, clock, mpp, method="otsu"):
    from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    clock.stop("import")
    reader = WSIReader.open(slide)
    if reader.info.mpp is None:  # it does not read the resolution tags of every TIFF; a user would say it
        reader = WSIReader.open(slide, mpp=(mpp, mpp), power=10 / mpp)
    clock.stop("open")
    tissue = reader.tissue_mask(method=method)
    clock.stop("tissue")
    patches = SlidingWindowPatchExtractor(
        input_img=reader,
        patch_size=(TILE, TILE),
        input_mask=tissue,
        resolution=TILE_MPP,
        units="mpp",
        min_mask_ratio=LEAST_TISSUE,
        within_bound=True,
    )
    count = len(patches.coordinate_list)
    clock.stop("tiles")
    memory = peak_mb()
    return {"tiles": {"20x": count}, "memory_mb": memory, "version": version("tiatoolbox")}, tissue.img > 0


def main():
    system, slide, mask_file, mpp = sys.argv[1:]
    clock = Clock()
    name, _, option = system.partition(":")
    work = {"histill": histill, "lazyslide": lazyslide, "tiatoolbox": tiatoolbox}[name]
    found, mask = work(slide, clock, float(mpp), *([option] if option else []))
    import numpy as np

    np.save(mask_file, np.asarray(mask, bool))
    print(json.dumps(found | {"steps": clock.steps}))


if __name__ == "__main__":
    main()

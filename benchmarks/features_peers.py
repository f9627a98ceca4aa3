"""One system reads or encodes the tiles of one slide in a fresh process; prints one line of JSON. Run by features.py.

It stands alone and needs nothing but the system it names, NumPy and OpenCV. All systems are given the same tiles (the
level-0 corners of histill's), the same batch size and the same network (random weights); everything else is their own
default, through their public functions. The clock starts before the first import of the system.
"""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

SIZE, MPP = 224, {"20x": 0.5, "10x": 1.0}
NETWORK = "mobilenetv3_small_050"
KEPT = 1000  # fields in memory, 0.6 GB; more of them go round


class Clock:
    """Wall and processor seconds since the last call, by name, children included."""

    def __init__(self):
        self.wall, self.cpu, self.last = {}, {}, self._now()

    def stop(self, name):
        now = self._now()
        self.wall[name], self.cpu[name] = (one - before for one, before in zip(now, self.last, strict=True))
        self.last = now

    @staticmethod
    def _now():
        return time.perf_counter(), sum(os.times()[:4])


def quarter(field, tiles):
    """Copy the quarters of a field, uint8 [2 S, 2 S, 3], into tiles, uint8 [2, 2, S, S, 3]."""
    tiles[:] = field.reshape(2, SIZE, 2, SIZE, 3).swapaxes(1, 2)


class Histill:
    name = "histill"

    def fields(self, job, clock):
        """What the stage reads: fields of 448 px."""
        return self.read(job, clock, cut=lambda field, tiles: None)

    def read(self, job, clock, cut=quarter):
        """Fields, each cut into its four 20x tiles."""
        from concurrent.futures import ThreadPoolExecutor

        from imagecodecs import jpeg8_decode  # noqa: F401  which the reader would import as it reads
        from openslide import OpenSlide  # noqa: F401

        from histill.slides.readers import open_slide

        clock.stop("import")
        boxes, side = np.load(job["tiles"])["fields"], 2 * SIZE
        queue = iter(boxes.tolist())  # next() of a list's iterator is atomic

        def work(reader):
            tiles = np.empty((2, 2, SIZE, SIZE, 3), np.uint8)
            field = np.empty((side, side, 3), np.uint8)
            with reader:
                for box in queue:
                    reader.read_region(*box, side, side, out=field)
                    cut(field, tiles)

        with open_slide(job["slide"]) as reader, ThreadPoolExecutor(job["threads"]) as pool:
            clock.stop("open")
            reader.expect(boxes, side, side)
            list(pool.map(work, [reader.clone() for _ in range(job["threads"])]))
            clock.stop("read")
        return {"tiles": 4 * len(boxes)}

    def encode(self, job, clock):
        """The stage, as the command line calls it: both magnifications from one pass."""
        import torch  # noqa: F401  what the stage imports when it builds the network
        from timm import create_model  # noqa: F401

        from histill import config
        from histill.cohort.sheets import Slide
        from histill.features import extract

        clock.stop("import")
        complete = config.load(job["config"])
        slides = [Slide("s", "p", job["slide"])]
        receipt = extract.run(slides, config=complete, results=complete["results"], threads=job["threads"])[0]
        clock.stop("extract")
        if receipt.state != "ok":
            sys.exit(f"{receipt.state}: {receipt.reason}")
        figures = {key: receipt.info[key] for key in ("tiles_per_second", "encoder_busy", "queue_depth")}
        return {"tiles": sum(receipt.counts[name] for name in MPP), **figures}

    def ceiling(self, job, clock):
        """The encoder alone: batches of fields that lie in memory; what it takes to warm up is left out."""
        from collections import deque

        import torch

        from histill import config
        from histill.encoders import recipes
        from histill.encoders.build import build
        from histill.encoders.passes import Pass
        from histill.slides.readers import open_slide

        clock.stop("import")
        torch.set_num_threads(job["threads"])
        options, side = config.load(job["config"])["features"], 2 * SIZE
        count = options["batch_size"] // 5
        boxes = np.load(job["tiles"])["fields"]
        fields = np.empty((min(len(boxes), KEPT) // count * count, side, side, 3), np.uint8)
        with open_slide(job["slide"]) as reader:
            for place, box in zip(fields, boxes.tolist(), strict=False):
                reader.read_region(*box, side, side, out=place)
        encoder = build(recipes.get(options["encoder"]), device=options["device"])
        encode = Pass({options["encoder"]: encoder}, size=SIZE, fields=count)
        encode.submit(fields[:count], count).result()
        clock.stop("load")
        flight, batches = deque(), len(boxes) // count
        for batch in range(batches):
            start = batch * count % len(fields)
            flight.append(encode.submit(fields[start : start + count], count))
            if len(flight) > 1:
                flight.popleft().result()
        while flight:
            flight.popleft().result()
        clock.stop("encode")
        return {"tiles": 5 * count * batches}


class LazySlide:
    name = "lazyslide"

    def _open(self, job, clock, magnification):
        import lazyslide_models  # noqa: F401  with torch and timm, which it would import as it reads or encodes
        from wsidata import TileSpec, open_wsi
        from wsidata.io import add_tiles

        clock.stop("import")
        wsi = open_wsi(job["slide"], store=None)
        corners = np.load(job["tiles"])[magnification]
        spec = TileSpec.from_wsidata(wsi, tile_px=SIZE, mpp=MPP[magnification])
        add_tiles(wsi, "tiles", corners, spec, np.zeros(len(corners), int))
        return wsi

    def read(self, job, clock):
        """The data set that its feature extraction reads from."""
        tiles = self._open(job, clock, "20x").ds.tile_images("tiles")
        clock.stop("open")
        for index in range(len(tiles)):
            assert tiles[index]["image"].shape == (SIZE, SIZE, 3)
        clock.stop("read")
        return {"tiles": len(tiles)}

    def encode(self, job, clock):
        import lazyslide as zs
        import torch

        torch.set_num_threads(job["threads"])
        wsi = self._open(job, clock, job["magnification"])
        clock.stop("open")
        zs.tl.feature_extraction(
            wsi, NETWORK, load_kws={"pretrained": False}, device="cpu", batch_size=job["batch"], pbar=False
        )
        clock.stop("features")
        with tempfile.TemporaryDirectory(dir=job["scratch"]) as folder:
            wsi.write(Path(folder) / "s.zarr")
            clock.stop("write")
        return {"tiles": len(wsi.fetch.features_anndata(NETWORK))}


class TiaToolbox:
    name = "tiatoolbox"

    def read(self, job, clock):
        """The reader's own call for a tile at a resolution."""
        from tiatoolbox.wsicore.wsireader import WSIReader

        clock.stop("import")
        reader = WSIReader.open(job["slide"])
        corners = np.load(job["tiles"])["20x"].tolist()
        clock.stop("open")
        for corner in corners:
            tile = reader.read_rect(corner, (SIZE, SIZE), resolution=MPP["20x"], units="mpp")
            assert tile.shape == (SIZE, SIZE, 3)
        clock.stop("read")
        return {"tiles": len(corners)}

    def encode(self, job, clock):
        import torch
        from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
        from tiatoolbox.models.models_abc import ModelABC
        from timm import create_model

        class Network(ModelABC):
            """Its own classes of timm networks know a fixed list of names."""

            def __init__(self):
                super().__init__()
                self.network = create_model(NETWORK, num_classes=0)
                self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
                self.register_buffer("std", 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

            def forward(self, images):
                return self.network((images - self.mean) / self.std)

            @staticmethod
            def infer_batch(model, batch_data, device):
                """As the toolbox's own feature networks do."""
                images = batch_data.to(device=device, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
                with torch.inference_mode():
                    return [model(images).cpu().numpy()]

        torch.set_num_threads(job["threads"])
        clock.stop("import")
        with tempfile.TemporaryDirectory(dir=job["scratch"]) as folder:
            extractor = DeepFeatureExtractor(Network().eval(), batch_size=job["batch"], device="cpu", verbose=False)
            done = extractor.run(
                [Path(job["slide"])],
                masks=[Path(job["mask"])],
                input_resolutions=[{"units": "mpp", "resolution": MPP[job["magnification"]]}],
                patch_input_shape=(SIZE, SIZE),
                stride_shape=(SIZE, SIZE),
                patch_mode=False,
                save_dir=Path(folder) / "out",
                output_type="zarr",
            )
            clock.stop("features")
            import zarr

            store = zarr.open(str(next(iter(done.values()))), mode="r")
            return {"tiles": store["features"].shape[0]}


def main():
    system, task, given = sys.argv[1:]
    job, clock = json.loads(given), Clock()
    worker = {one.name: one for one in (Histill, LazySlide, TiaToolbox)}[system]()
    found = getattr(worker, task)(job, clock)
    print(json.dumps(found | {"wall": clock.wall, "cpu": clock.cpu, "version": version(system)}))


if __name__ == "__main__":
    main()

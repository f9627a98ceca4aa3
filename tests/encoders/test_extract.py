"""Extraction of several slides and encoders: what depends on what, and what survives which misfortune."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.errors import HistillError, SlideError
from histill.features import extract, store_writer
from histill.features.reading import parts
from histill.features.store import read_group, verify
from histill.provenance import tree_digest
from histill.slides import inspect, segment, tile

SIZE = 96
NAMES = ("a", "b", "c")


def paint(path: Path, seed: int, side: int) -> None:
    """A slide of one stained disc, JPEG tiles at 0.5 µm a pixel."""
    draw = np.random.default_rng(seed)
    picture = np.full((side, side, 3), 243, np.uint8)
    cv2.circle(picture, (side // 2, side // 2), int(side * 0.45), (222, 160, 196), -1)
    for x, y in draw.integers(0, side, (side * side // 800, 2)).tolist():
        if np.hypot(x - side / 2, y - side / 2) < side * 0.42:
            cv2.circle(picture, (x, y), 5, (96, 62, 140), -1)
    with tifffile.TiffWriter(path) as file:
        for level in (1, 2):
            file.write(
                picture[::level, ::level],
                tile=(128, 128),
                photometric="rgb",
                compression="jpeg",
                subfiletype=level - 1,
                resolution=(2e4, 2e4),
                resolutionunit=3,
            )


@pytest.fixture(scope="module")
def tiled(tmp_path_factory) -> Path:
    """Results of three slides up to their tiles."""
    folder = tmp_path_factory.mktemp("tiled")
    for seed, name in enumerate(NAMES):
        paint(folder / f"{name}.tif", seed, (1152, 768, 960)[seed])
    config = settings(folder / "results")
    for stage in (inspect, segment, tile):
        receipts = stage.run(slides(folder), config=config, results=folder / "results")
        assert [receipt.state for receipt in receipts] == ["ok"] * 3
    return folder


def slides(folder: Path) -> list[Slide]:
    return [Slide(name, "p", str(folder / f"{name}.tif")) for name in NAMES]


def settings(results: Path, **features) -> dict:
    features = {"device": "cpu", "allow_off_recipe": True, **features}
    return complete({"results": str(results), "cohort": {}, "tiles": {"size": SIZE}, "features": features})


@pytest.fixture
def run(tiled, tmp_path, tiny, tiny_weights):
    """Extract into a folder of its own: its digests by encoder and slide, and the receipts."""
    (tmp_path / "tiny.safetensors").write_bytes(tiny_weights)

    def extracted(name: str, chosen: list[Slide] | None = None, threads: int = 1, **features):
        results = tmp_path / name
        if not results.exists():
            subprocess.run(["cp", "-r", str(tiled / "results"), str(results)], check=True)
        if features.get("encoder") == "tiny":
            features["weights"] = str(tmp_path / "tiny.safetensors")
        config = settings(results, **features)
        receipts = extract.run(chosen or slides(tiled), config=config, results=results, threads=threads)
        found = {
            (path.parent.name, path.stem): tree_digest(path) for path in (results / "features").glob("[!.]*/[!.]*.zarr")
        }
        return found, receipts

    return extracted


def test_a_store_does_not_depend_on_what_shared_its_batches(run, tiled, tmp_path):
    together, receipts = run("together", encoder="tiny", batch_size=55)
    assert [receipt.state for receipt in receipts] == ["ok"] * 3
    assert all(receipt.counts["10x"] % 11 for receipt in receipts[:2]), "batches must cross the borders of slides"
    alone = {}
    for slide in slides(tiled):
        alone |= run(f"alone {slide.slide_id}", [slide], encoder="tiny", batch_size=55)[0]
    assert alone == together
    assert run("turned", slides(tiled)[::-1], encoder="tiny", batch_size=55)[0] == together
    assert run("threads", encoder="tiny", batch_size=55, threads=16)[0] == together


def test_the_size_of_batches_changes_no_more_than_the_last_digits(run, tmp_path):
    reference = run("64", encoder="tiny", batch_size=64)[1]
    run("5", encoder="tiny", batch_size=1)
    for receipt in reference:
        for group in ("10x", "20x"):
            one, other = (
                read_group(tmp_path / name / f"features/tiny/{receipt.slide}.zarr", group) for name in ("64", "5")
            )
            np.testing.assert_allclose(one.x.astype(float), other.x.astype(float), rtol=2e-3, atol=2e-3)
    assert run("texture", batch_size=5)[0] == run("texture 64", batch_size=64)[0]


def test_several_encoders_of_one_pass_give_what_each_gives_alone(run, tmp_path):
    weights = str(tmp_path / "tiny.safetensors")
    both, receipts = run("both", encoder="colour-texture", also={"tiny": weights})
    assert both == run("one", encoder="colour-texture")[0] | run("other", encoder="tiny")[0]
    assert receipts[0].info["also"] == ["tiny"]
    assert len(receipts[0].outputs) == 2


def test_an_encoder_that_is_added_leaves_the_stores_of_others_alone(run, tmp_path):
    before, _ = run("x", encoder="colour-texture")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "x/features/colour-texture").rglob("*")}
    after, _ = run("x", encoder="colour-texture", also={"tiny": str(tmp_path / "tiny.safetensors")})
    assert after.items() > before.items()
    assert len(after) == 6
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "x/features/colour-texture").rglob("*")}
    swapped = {"encoder": "tiny", "also": {"colour-texture": None}}
    assert run("x", **swapped)[0] == after
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "x/features/colour-texture").rglob("*")}
    (tmp_path / "x/features/colour-texture/a.zarr/20x/X/c/0/0").write_bytes(b"damaged")
    again = run("x", encoder="colour-texture", also={"tiny": str(tmp_path / "tiny.safetensors")})
    assert again[0] == after, "a damaged store is written anew"


def test_a_field_that_cannot_be_read_is_a_flagged_row(run, tiled, monkeypatch, tmp_path):
    opened = extract.open_slide
    monkeypatch.setattr(extract, "open_slide", lambda path, *args, **how: Holes(opened(path, *args, **how), 3))
    _, receipts = run("holes", batch_size=20)
    assert [receipt.state for receipt in receipts] == ["ok"] * 3
    monkeypatch.undo()
    run("whole", batch_size=20)
    for receipt in receipts:
        rows = receipt.counts["10x"]
        bad = -(-rows // 3)
        assert receipt.counts["unreadable"] == 5 * bad
        assert f"{5 * bad} of {5 * rows} tiles could not be read" in receipt.warnings
        for group, each in (("10x", 1), ("20x", 4)):
            path = f"features/colour-texture/{receipt.slide}.zarr"
            holes, whole = (read_group(tmp_path / name / path, group) for name in ("holes", "whole"))
            assert (np.flatnonzero(~holes.valid)[::each] == np.arange(0, rows * each, 3 * each)).all()
            assert not holes.x[~holes.valid].any()
            np.testing.assert_array_equal(holes.x[holes.valid], whole.x[holes.valid])


def test_a_slide_none_of_whose_fields_can_be_read_is_set_aside(run, tiled, monkeypatch, tmp_path):
    opened = extract.open_slide
    monkeypatch.setattr(
        extract,
        "open_slide",
        lambda path, *args, **how: Holes(opened(path, *args, **how), 1 if path.endswith("b.tif") else 10**6),
    )
    _, receipts = run("holes", batch_size=20)
    assert [receipt.state for receipt in receipts] == ["ok", "quarantined", "ok"]
    assert "none of its" in receipts[1].reason
    assert "a hole" in receipts[1].reason
    assert sorted(path.name for path in (tmp_path / "holes/features/colour-texture").iterdir()) == ["a.zarr", "c.zarr"]


@pytest.mark.parametrize("bad", NAMES)
@pytest.mark.parametrize("after", [0, 5])
def test_a_slide_that_crashes_its_reader_costs_itself_alone(bad, after, run, tiled, monkeypatch):
    """Also where it would have filled all batches that there is room for."""
    opened = extract.open_slide
    monkeypatch.setattr(
        extract,
        "open_slide",
        lambda path, *args, **how: Crash(
            opened(path, *args, **how), after if path.endswith(f"{bad}.tif") else len(NAMES) * 10**6
        ),
    )
    found, receipts = run("crash", batch_size=5)
    assert {receipt.slide: receipt.state for receipt in receipts} == dict.fromkeys(NAMES, "ok") | {bad: "quarantined"}
    monkeypatch.undo()
    whole, _ = run("whole", batch_size=5)
    assert found == {key: digest for key, digest in whole.items() if key[1] != bad}


def test_a_slide_that_is_replaced_after_it_was_inspected_is_set_aside(run, tiled, tmp_path):
    others = [Slide(name, "p", str(tmp_path / f"{name}.tif")) for name in NAMES]
    for number, slide in enumerate(slides(tiled)):
        content = Path(slide.path).read_bytes()
        Path(others[number].path).write_bytes(content if number else content + b"\0")
    _, receipts = run("x", others)
    assert [receipt.state for receipt in receipts] == ["quarantined", "ok", "ok"]
    assert "not the file that was inspected" in receipts[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.set_column(1, "x", table.column("x").cast("int64")), "column 'x' is int64"),
        (lambda table: table.set_column(1, "x", pa.array([None] * len(table), "int32")), "gaps"),
        (lambda table: table.set_column(1, "x", pa.array([10**8] * len(table), "int32")), "is not on the slide"),
        (lambda table: table.set_column(3, "width", pa.array([0] * len(table), "int32")), "is not on the slide"),
    ],
)
def test_a_tile_table_that_was_edited_is_refused(change, reason, run, tmp_path):
    run("x")
    path = tmp_path / "x/slides/b/tiles.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    _, receipts = run("x")
    assert [receipt.state for receipt in receipts] == ["ok", "quarantined", "ok"]
    assert reason in receipts[1].reason


class Crash:
    """A slide whose reader ends the process after some fields."""

    def __init__(self, reader, left: int):
        self.reader, self.left = reader, left

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.reader.close()

    def clone(self):
        return self

    def read_region(self, *box, **options):
        if self.left == 0:
            os.abort()
        self.left -= 1
        return self.reader.read_region(*box, **options)


class Holes:
    """A slide every n-th field of which cannot be read, counted from the first."""

    def __init__(self, reader, every: int):
        self.reader, self.every = reader, every

    def __enter__(self):
        self.reader.__enter__()
        return self

    def __exit__(self, *error):
        self.reader.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def expect(self, boxes, *size):
        self.bad = {tuple(box) for box in boxes[:: self.every].tolist()}

    def clone(self):
        return self

    def read_region(self, x, y, width, height, *size, **options):
        if (x, y, width, height) in self.bad:
            raise SlideError("a hole", mend="fill it")
        return self.reader.read_region(x, y, width, height, *size, **options)


def test_an_encoder_that_cannot_be_built_is_no_fault_of_the_slides(run, tmp_path, tiny_weights):
    weights = tmp_path / "bad.safetensors"
    weights.write_bytes(tiny_weights[: len(tiny_weights) // 2])
    with pytest.raises(HistillError, match=r"bad\.safetensors"):
        run("bad", encoder="colour-texture", also={"tiny": str(weights)})
    assert not list((tmp_path / "bad").rglob("features.json"))


def test_a_store_that_another_process_writes_is_left_to_it(run, tiled, tmp_path):
    run("x", slides(tiled)[1:])
    path = tmp_path / "x/features/colour-texture/a.zarr"
    with (
        store_writer.StoreWriter(path, {}, {}, inputs={}),
        pytest.raises(HistillError, match=r"a\.zarr is being written"),
    ):
        run("x")
    assert [receipt.state for receipt in run("x")[1]] == ["ok"] * 3


def test_the_receipt_says_how_fast_it_was(run):
    _, receipts = run("x", encoder="tiny")
    for receipt in receipts:
        assert receipt.info["tiles_per_second"] > 0
        assert 0 < receipt.info["encoder_busy"] <= 1
        assert 1 <= receipt.info["queue_depth"] <= 4
        assert receipt.seconds > 0


KILLED = """
import sys
from histill.features import store_writer
store_writer.CHECKPOINT_SECONDS = 0.0
from histill.cli import main
sys.argv = ["histill", "features", "extract", "--config", "config.yaml", "--threads", "2"]
main()
"""


def test_killed_at_ten_moments_the_stores_are_what_an_undisturbed_run_gives(run, tiled, shell, tmp_path):
    expected, _ = run("whole", encoder="tiny", also={"colour-texture": None}, batch_size=10)
    results = tmp_path / "killed"
    subprocess.run(["cp", "-r", str(tiled / "results"), str(results)], check=True)
    sheet = "\n".join(["slide_id,patient_id,path", *(f"{one.slide_id},p,{one.path}" for one in slides(tiled))])
    (tmp_path / "slides.csv").write_text(sheet + "\n")
    features = {"encoder": "tiny", "weights": str(tmp_path / "tiny.safetensors"), "also": {"colour-texture": None}}
    features |= {"device": "cpu", "allow_off_recipe": True, "batch_size": 10}
    config = {
        "results": str(results),
        "cohort": {"slides": "slides.csv"},
        "tiles": {"size": SIZE},
        "features": features,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {**shell.environment, "CUDA_VISIBLE_DEVICES": ""}

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)

    draw, resumed = np.random.default_rng(), 0
    for _ in range(10):
        before = written(results)
        resumed += before > 0
        process = start()
        deadline = time.monotonic() + 60
        while written(results) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start().wait() == 0
    assert resumed >= 5
    found = {(path.parent.name, path.stem): path for path in (results / "features").glob("*/[!.]*.zarr")}
    assert {key: tree_digest(path) for key, path in found.items()} == expected
    for path in found.values():
        verify(path)
    assert not list((results / "features").glob("*/.*")), "nothing is left of the killed runs"


def written(results: Path) -> int:
    """Lines in the journals of what is being written, and ten thousand for what is complete."""
    lines = sum(len(path.read_bytes().splitlines()) for path in (results / "features").glob("*/.*.part/journal"))
    return lines + 10_000 * len(list((results / "features").glob("*/[!.]*.zarr")))


@pytest.mark.parametrize(
    ("start", "stop", "place", "size"), [(0, 25, 7, 10), (3, 4, 9, 10), (5, 5, 0, 3), (0, 9, 0, 3)]
)
def test_parts_cover_every_field_once_and_cross_no_batch(start, stop, place, size):
    cut = parts(start, stop, place, size)
    assert [field for part in cut for field in range(part.start, part.stop)] == list(range(start, stop))
    for part in cut:
        assert part.place - place == part.start - start
        assert part.place // size == (part.place + part.stop - part.start - 1) // size == part.batch

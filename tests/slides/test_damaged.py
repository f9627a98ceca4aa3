"""Damaged slides, no slides and hostile ones, through the stages, with a sound slide beside them.

Whatever the file: a receipt with a reason that names it and a mend, in bounded time and memory, no process and no half
file left, and the sound slide comes out as if it were alone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.features import extract
from histill.slides import inspect, segment, tile
from tests.slides import odd_files

SECONDS, MEMORY_MB = 10, 600
STAGES = (inspect, segment, tile, extract)
FLIPS = 18


def settings(seconds=SECONDS):
    config = complete({"results": "results", "cohort": {}})
    config["slides"] |= {"time_limit": seconds, "memory_mb": MEMORY_MB}
    return config


def run(stages, paths, results, config):
    """Receipts by slide name, one a stage."""
    slides = [Slide(path.stem, "p", str(path)) for path in paths]
    receipts = [stage.run(slides, config=config, results=results) for stage in stages]
    return {slide.slide_id: list(row) for slide, *row in zip(slides, *receipts, strict=True)}


def check_bad(receipts, path, limit=SECONDS):
    """A slide that is not ok says why, names its file and a mend, and took no longer than it may."""
    bad = next(receipt for receipt in receipts if receipt.state != "ok")
    assert bad.reason
    assert bad.mend
    if bad.state == "quarantined":
        assert path.name in bad.reason
        assert bad.outputs == {}
    assert [receipt.reason for receipt in receipts[receipts.index(bad) :]] == [bad.reason] * (
        len(receipts) - receipts.index(bad)
    )
    assert all(receipt.seconds < limit + 3 for receipt in receipts)


def children():
    """Command lines of child processes, but Python's own helper, which stays once any test has started it."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in found]
    return [command for command in commands if "resource_tracker" not in command]


def check_tidy(results):
    assert not list(results.rglob(".*.part*"))
    assert not children()


@pytest.fixture(scope="module")
def sound(stained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    picture = stained(1000, 1200)
    return {name: odd_files.write_pyramid(folder / f"sound-{name}.tiff", picture, name) for name in ("jpeg", "zlib")}


@pytest.fixture(scope="module")
def cohort(sound, tmp_path_factory):
    """Every odd file of the suite in one cohort, through the slide stages."""
    folder, results = tmp_path_factory.mktemp("odd"), tmp_path_factory.mktemp("results")
    groups = {"bomb": odd_files.bombs(folder), "no": odd_files.no_slides(folder)}
    for name, path in sound.items():
        whole = path.read_bytes()
        groups[f"cut-{name}"] = odd_files.cut(whole, folder, f"cut-{name}")
        groups[f"flip-{name}"] = odd_files.flip(whole, folder, f"flip-{name}", FLIPS)
    renamed = folder / "renamed.jpg"
    shutil.copy(sound["jpeg"], renamed)
    groups["sound"] = [*sound.values(), renamed]
    paths = {path.stem: path for group in groups.values() for path in group}
    receipts = run(STAGES[:3], list(paths.values()), results, settings())
    return groups, receipts, results


def test_sound_slides_come_out_as_if_they_were_alone(cohort, sound, tmp_path):
    _, receipts, results = cohort
    alone = run(STAGES[:3], list(sound.values()), tmp_path, settings())
    for path in sound.values():
        assert [receipt.state for receipt in receipts[path.stem]] == ["ok"] * 3
        assert [one.outputs for one in receipts[path.stem]] == [one.outputs for one in alone[path.stem]]
    assert receipts["renamed"][2].state == "ok", "a slide is known by its content, not by its name"
    check_tidy(results)


@pytest.mark.parametrize("kind", ["cut-jpeg", "cut-zlib", "no"])
def test_what_is_cut_or_no_slide_is_found_at_once(cohort, kind):
    groups, receipts, _ = cohort
    for path in groups[kind]:
        assert receipts[path.stem][0].state == "quarantined", path.name
        check_bad(receipts[path.stem], path)


def test_bombs_do_not_go_off(cohort):
    groups, receipts, _ = cohort
    for path in groups["bomb"]:
        assert receipts[path.stem][2].state != "ok", path.name
        check_bad(receipts[path.stem], path)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < own + (MEMORY_MB + 100) * 1024


@pytest.mark.parametrize("kind", ["flip-jpeg", "flip-zlib"])
def test_flipped_bits_end_in_a_receipt(cohort, kind):
    groups, receipts, _ = cohort
    states = [receipts[path.stem][2].state for path in groups[kind]]
    for path, state in zip(groups[kind], states, strict=True):
        if state != "ok":
            check_bad(receipts[path.stem], path)
    assert "quarantined" in states


def test_the_last_stage_takes_what_is_left(cohort):
    """Pixels that no earlier stage had to read may be damaged as well."""
    groups, receipts, results = cohort
    paths = [path for kind in ("flip-jpeg", "flip-zlib", "cut-zlib", "sound") for path in groups[kind]]
    last = run([extract], paths, results, settings())
    for path in paths:
        if receipts[path.stem][2].state == "ok" and last[path.stem][0].state != "ok":
            check_bad(last[path.stem], path)
    assert all(last[path.stem][0].state == "ok" for path in groups["sound"])
    check_tidy(results)


def test_a_file_without_permission(sound, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read anything")
    path = tmp_path / "locked.tiff"
    shutil.copy(sound["jpeg"], path)
    path.chmod(0)
    check_bad(run([inspect], [path], tmp_path / "results", settings())["locked"], path)


class Hostile:
    """A reader that does as its file's name says, from the third read on (at once where a stage reads but once)."""

    def __init__(self, reader, at_once):
        self.reader = reader
        self.left = 0 if at_once else 2

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()

    def clone(self):
        return self

    def read_region(self, *box, **options):
        if self.left == 0:
            DEEDS[self.reader.path.stem](self.reader.path)
        self.left -= 1
        return self.reader.read_region(*box, **options)


def raise_(error):
    raise error


def eat():
    held = []
    while True:
        held.append(bytearray(64 << 20))


def grow(path):
    with open(path, "ab") as file:
        file.write(b"more")


# name -> (what the reader does, what the reason says)
DEEDS = {
    "sleeps": lambda _: time.sleep(60),
    "loops": lambda _: ctypes.PyDLL(None).pause(),
    "segfaults": lambda _: ctypes.string_at(0),
    "aborts": lambda _: os.abort(),
    "exits": lambda _: os._exit(0),
    "leaves": lambda _: sys.exit(2),
    "interrupts": lambda _: raise_(KeyboardInterrupt()),
    "bugs": lambda _: raise_(ZeroDivisionError("division by zero")),
    "eats": lambda _: eat(),
    "killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "changes": grow,
    "sound": lambda _: None,
}
REASONS = {
    "sleeps": "took longer than 3 s",
    "loops": "took longer than 3 s",
    "segfaults": "SIGSEGV",
    "aborts": "SIGABRT",
    "exits": "exit status 0",
    "leaves": "SystemExit",
    "interrupts": "KeyboardInterrupt",
    "bugs": "ZeroDivisionError: division by zero",
    "eats": "memory limit: 600 MB",
    "killed": "SIGKILL",
    "changes": "changed while it was read",
}


@pytest.mark.parametrize("place", range(4), ids=["inspect", "tissue", "tiles", "features"])
def test_a_hostile_reader_costs_its_slide_alone(place, sound, tmp_path, monkeypatch):
    paths = [tmp_path / f"{deed}.tiff" for deed in DEEDS]
    for path in paths:
        shutil.copy(sound["zlib"], path)
    before = run(STAGES[:place], paths, tmp_path, settings())
    assert all(receipt.state == "ok" for row in before.values() for receipt in row)
    stage = STAGES[place]
    opened = stage.open_slide
    hostile = lambda *args, **options: Hostile(opened(*args, **options), at_once=stage is not extract)  # noqa: E731
    monkeypatch.setattr(stage, "open_slide", hostile)
    config = settings(3)
    config["features"]["batch_size"] = 4  # several batches a slide
    start = time.monotonic()
    receipts = run([stage], paths, tmp_path, config)
    assert time.monotonic() - start < 60
    for path in paths:
        if path.stem == "sound":
            assert receipts["sound"][0].state == "ok"
        else:
            assert receipts[path.stem][0].state == "quarantined", path.stem
            assert REASONS[path.stem] in receipts[path.stem][0].reason
            check_bad(receipts[path.stem], path, 3)
    if stage is extract:
        assert [path.stem for path in sorted((tmp_path / "features").rglob("*.zarr"))] == ["sound"]
    check_tidy(tmp_path)


def test_a_fingerprint_that_hangs_costs_its_slide_alone(sound, tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.tiff" for name in ("one", "stuck", "two")]
    for path in paths:
        shutil.copy(sound["zlib"], path)
    real = inspect.slide_fingerprint
    monkeypatch.setattr(
        inspect, "slide_fingerprint", lambda path: time.sleep(60) if "stuck" in str(path) else real(path)
    )
    receipts = run([inspect], paths, tmp_path / "results", settings(2))
    assert [receipts[path.stem][0].state for path in paths] == ["ok", "quarantined", "ok"]
    assert "stuck.tiff: stage inspect took longer than 2 s" in receipts["stuck"][0].reason
    check_tidy(tmp_path)


def test_a_mended_slide_is_taken_up_again(sound, tmp_path):
    path = tmp_path / "slide.tiff"
    path.write_bytes(sound["jpeg"].read_bytes()[:-1])
    assert run([inspect], [path], tmp_path, settings())["slide"][0].state == "quarantined"
    shutil.copy(sound["jpeg"], path)
    assert [receipt.state for receipt in run(STAGES, [path], tmp_path, settings())["slide"]] == ["ok"] * 4

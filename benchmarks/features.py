"""How fast slides are read and features extracted, and how far from the limit.

    python benchmarks/features.py read
    python benchmarks/features.py extract [--encoder random-vit-s] [--device cpu]
    python benchmarks/features.py peers --peer lazyslide=PYTHON --peer tiatoolbox=PYTHON

All on a synthetic scan of 40,000 × 30,000 px in JPEG tiles (`features_slide.py`), the page cache warm, candidates in
turns within a round. `read`: ways to read 20x tiles beside the speed at which their JPEG tiles can be decoded.
`extract`: the stage beside its reading alone and its encoder alone. `peers`: other systems, each in its own Python.
Prints a table in Markdown (medians; ratios are medians of the rounds' own) and writes every run with --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import features_encoders
import features_slide
from features_job import Run, prepare, work
from features_read import ALONE, BOTH, FIELDS, LIMIT, OPENSLIDE, WAYS, Case, compare

from histill.encoders.passes import TILES

TILES_OF = {"20x": 4, "10x": 1}  # of a field
FIELDS_OF = {"read": 1500, "extract": 200, "peers": 600}
SECONDS = ("process, wall s", "process, CPU s", "work, wall s", "work, CPU s")


def read(given: argparse.Namespace, scratch: Path) -> tuple[list[Run], list[str]]:
    """Processor time with one thread, wall time with one and with several; all in this process."""
    runs = []
    for mpp, name in ((0.5, "20x scan"), (0.25, "40x scan")):
        path, size = scratch / f"{mpp}.svs", tuple(given.size)
        cells = features_slide.write_slide(path, size, mpp=mpp)
        case = Case.of(path, size, cells, mpp=mpp, number=given.fields)
        compare(case)
        calls = {(way, 1): make(case, 1) for way, make in WAYS.items()}
        if given.threads > 1:
            calls |= {(way, given.threads): WAYS[way](case, given.threads) for way in (LIMIT, OPENSLIDE, FIELDS)}
        for number in range(given.repeats):
            for (way, threads), call in calls.items():
                about = {"case": name, "way": way, "threads": threads, "round": number}
                runs.append(about | {"tiles": len(case.grid.children)} | timed(call))
    return runs, read_table(runs)


def read_table(runs: list[Run]) -> list[str]:
    """Shares and ratios are of processor time with one thread."""
    lines = header(
        "scan", "20x tiles by", "threads", "tiles/CPU-s", "tiles/s", "of the limit", "× OpenSlide", "× 20x alone"
    )
    groups = grouped(runs, "case", "way", "threads")
    for (case, way, threads), mine in groups.items():

        def against(other: str, mine=mine, case=case) -> float:
            return median(one["cpu"] / run["cpu"] for one, run in zip(groups[case, other, 1], mine, strict=True))

        speeds = [f"{median(run['tiles'] / run[clock] for run in mine):,.0f}" for clock in ("cpu", "wall")]
        ratios = [f"{against(LIMIT):.0%}", f"{against(OPENSLIDE):.1f}"] if threads == 1 else ["", ""]
        lines.append(row(case, way, threads, *speeds, *ratios, f"{1 / against(ALONE):.2f}" if way == BOTH else ""))
    return lines


def extract(given: argparse.Namespace, scratch: Path) -> tuple[list[Run], list[str]]:
    """The stage beside its two limits: reading without encoding, and encoding what lies in memory."""
    job, runs = prepare(given, scratch), []
    for number in range(given.repeats):
        for task in ("fields", "ceiling", "encode"):
            runs.append({"task": task, "round": number} | work(sys.executable, "histill", task, job, given.threads))
    done, tiles = {task: mine for (task,), mine in grouped(runs, "task").items()}, TILES * job["fields"]
    speeds = {
        "fields": [tiles / run["wall"]["read"] for run in done["fields"]],
        "ceiling": [run["tiles"] / run["wall"]["encode"] for run in done["ceiling"]],
        "encode": [run["tiles_per_second"] for run in done["encode"]],
    }
    share = median(mine / min(limits) for *limits, mine in zip(*speeds.values(), strict=True))
    table = {
        "encoder": given.encoder,
        "device": given.device,
        "threads": given.threads,
        "tiles": f"{tiles:,}",
        "reading alone, tiles/s": f"{median(speeds['fields']):,.1f}",
        "encoder alone": f"{median(speeds['ceiling']):,.1f}",
        "end to end": f"{median(speeds['encode']):,.1f}",
        "of the smaller": f"{share:.2f}",
        "encoder busy": f"{median(run['encoder_busy'] for run in done['encode']):.0%}",
        "batches waiting": f"{median(run['queue_depth'] for run in done['encode']):.1f}",
    }
    return runs, [*header(*table), row(*table.values())]


def peers(given: argparse.Namespace, scratch: Path) -> tuple[list[Run], list[str]]:
    """Reading on one core; then a run of each peer for each magnification, and one run of histill for both."""
    given.encoder, given.device = "random-mobilenet", "cpu"
    job, runs = prepare(given, scratch), []
    pythons = {"histill": sys.executable} | dict(one.split("=", 1) for one in given.peer)

    turns = [(system, "read", "20x", 1) for system in pythons] + [
        (system, "encode", of, given.threads)
        for system in pythons
        for of in (("20x+10x",) if system == "histill" else TILES_OF)
    ]
    for number, (system, task, of, threads) in product(range(given.repeats), turns):
        done = work(pythons[system], system, task, job | {"magnification": of}, threads)
        if done["tiles"] != job["fields"] * sum(TILES_OF[part] for part in of.split("+")):
            raise SystemExit(f"{system}, {task}, {of}: {done['tiles']} tiles of {job['fields']} fields")
        runs.append({"system": system, "task": task, "of": of, "round": number} | done)
    return runs, [*peers_reading(runs), "", *peers_encoding(runs)]


def peers_reading(runs: list[Run]) -> list[str]:
    """Seconds of reading, without imports and opening."""
    lines = header("20x tiles, one core", "tiles", "CPU s", "tiles/CPU-s", "CPU s ÷ histill's")
    groups = grouped((run for run in runs if run["task"] == "read"), "system")
    for mine in groups.values():
        pairs = [(one["cpu"]["read"], own["cpu"]["read"]) for one, own in zip(mine, groups["histill",], strict=True)]
        middle, ratio = median(one for one, _ in pairs), median(one / own for one, own in pairs)
        tiles = mine[0]["tiles"]
        cells = f"{tiles:,}", f"{middle:.2f}", f"{tiles / middle:,.0f}", f"{ratio:.1f}"
        lines.append(row(f"{mine[0]['system']} {mine[0]['version']}", *cells))
    return lines


def peers_encoding(runs: list[Run]) -> list[str]:
    """Sums over the runs of a round; work is all but imports."""
    lines = header("both magnifications", "tiles", *SECONDS, *(f"{name} ÷ histill's" for name in SECONDS[::2]))
    groups = grouped((run for run in runs if run["task"] == "encode"), "system", "round")
    sums = {key: [sum(amounts) for amounts in zip(*map(seconds, mine), strict=True)] for key, mine in groups.items()}
    for (system,), mine in grouped((run for run in runs if run["task"] == "encode"), "system").items():
        rounds = [(sums[system, number], sums["histill", number]) for number in unique(mine, "round")]
        middle = [f"{median(one[index] for one, _ in rounds):.1f}" for index in range(len(SECONDS))]
        ratios = [f"{median(one[index] / own[index] for one, own in rounds):.1f}" for index in (0, 2)]
        tiles = sum(run["tiles"] for run in groups[system, 0])
        lines.append(row(f"{system} {mine[0]['version']}", f"{tiles:,}", *middle, *ratios))
    return lines


def seconds(run: Run) -> list[float]:
    """Those of `SECONDS`."""
    work = [sum(amount for step, amount in run[clock].items() if step != "import") for clock in ("wall", "cpu")]
    return [run["process_wall"], run["process_cpu"], *work]


def grouped(runs: Iterable[Run], *keys: str) -> dict[tuple, list[Run]]:
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in keys), []).append(run)
    return groups


def unique(runs: Iterable[Run], key: str) -> list[Any]:
    return list(dict.fromkeys(run[key] for run in runs))


def timed(call: Callable[[], None]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def header(*columns: str) -> list[str]:
    return [row(*columns), "|---" * len(columns) + "|"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=FIELDS_OF)
    parser.add_argument("--size", type=int, nargs=2, default=(40_000, 30_000), metavar=("WIDTH", "HEIGHT"))
    fields = ", ".join(f"{what} {number:,}" for what, number in FIELDS_OF.items())
    parser.add_argument("--fields", type=int, help=f"at most, of five tiles each; without: {fields}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--encoder", default="random-vit-s", help=", ".join(features_encoders.recipes))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64, help="tiles a batch")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--out", type=Path, help="JSON file for every run")
    given = parser.parse_args()
    given.fields = given.fields or FIELDS_OF[given.what]
    with tempfile.TemporaryDirectory(prefix="histill-benchmark-") as folder:
        runs, lines = {"read": read, "extract": extract, "peers": peers}[given.what](given, Path(folder))
    print("\n".join(lines))
    if given.out:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()}
        asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
        given.out.write_text(json.dumps({"asked": asked, **machine, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()

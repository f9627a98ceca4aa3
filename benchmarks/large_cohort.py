"""Time and memory of planning and collecting on a finished cohort of 10,000 or 20,000 slides, without a pixel.

    python benchmarks/large_cohort.py [--slides 20000] [--models] [--folder FOLDER]

The cohort is as a run leaves it: sheets, a tiny file for every slide, all receipts of the slide stages with the facts
that the report reads, written by histill's own functions; then the stages after them are run, one command each, and
`snakemake --touch --forceall` records Snakemake's metadata. What is left out: pixels, tile tables, overviews, the
features themselves (a store is its completion record alone), so no model of slides is trained; with `--models` one of
transcriptomes is, `linear-rna`. Every command is a process of its own on one thread; printed are its wall time,
processor time and largest memory, and what Snakemake plans after changes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histill import batches, plan, stages
from histill import config as configuration
from histill.cohort.sheets import Slide
from histill.demo.planted_design import CLASSES, Patients, draw_counts, draw_patients
from histill.features.store import FORMAT, RECORD, Group, store_path, write_store
from histill.features.zarr_files import group_node
from histill.provenance import EMPTY, QUARANTINED, Receipt, digest, write_csv
from histill.slides.quality import FLAGS

ROOT = Path(__file__).resolve().parent.parent
ENCODER, DIM = "colour-texture", 88
SLIDE_STAGES = ("inspect", "tissue", "tiles", "features")
SECOND_SLIDE = 10  # every tenth slide is the second one of the patient before
# Of so many slides one cannot be read, one holds no tissue, one is amber, and one has a warning.
UNREADABLE, BARE, AMBER, WARNED = 100, 50, 10, 40
MODELS = {
    "transcriptome": {"matrix": {"unit": "counts", "ids": "symbol"}},
    "tasks": {
        "survival": {"type": "survival", "time": "os_months", "event": "os_event"},
        "diagnosis": {"type": "classification", "label": "diagnosis"},
    },
    "methods": {"run": ["linear-rna"]},
}
# One thread, and rules find the `histill` that belongs to this interpreter.
ENVIRONMENT = {
    **os.environ,
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA")},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def make(folder: Path, slides: int, models: bool = False) -> None:
    """Write a cohort whose slide stages are done.

    Parameters
    ----------
    folder
        Where; made.
    slides
        How many, on nine tenths as many patients.
    models
        Whether there are transcriptomes, and tasks to train for.
    """
    (folder / "slides").mkdir(parents=True)
    config: dict[str, Any] = {"results": "results", "cohort": {"slides": "slides.csv", "clinical": "clinical.csv"}}
    with contextlib.chdir(folder):
        patients = write_sheets(slides)
        if models:
            write_expression(patients)
            config |= MODELS | {"cohort": config["cohort"] | {"expression": "expression.parquet"}}
        Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        write_slide_stages(plan.load("config.yaml"))


def write_sheets(slides: int) -> Patients:
    """slides.csv with its files, and clinical.csv."""
    owners = [index - 1 if index % SECOND_SLIDE == SECOND_SLIDE - 1 else index for index in range(slides)]
    kept = sorted(set(owners))
    drawn = draw_patients(len(kept), seed=0)
    patients = dict(zip(kept, drawn.ids, strict=True))
    rows = [row(f"{patients[owner]}-DX{index - owner + 1}", patients[owner]) for index, owner in enumerate(owners)]
    write_csv("slides.csv", list(rows[0]), rows)
    columns = zip(drawn.ids, drawn.months, drawn.event, drawn.diagnosis, strict=True)
    clinical = [
        {"patient_id": patient, "os_months": f"{months:.2f}", "os_event": event, "diagnosis": CLASSES[label]}
        for patient, months, event, label in columns
    ]
    write_csv("clinical.csv", list(clinical[0]), clinical)
    return drawn


def row(slide: str, patient: str) -> dict[str, str]:
    """A row of slides.csv, with its file."""
    path = f"slides/{slide}.svs"
    Path(path).write_text(slide, encoding="utf-8")
    return {"slide_id": slide, "patient_id": patient, "path": path}


def write_expression(patients: Patients) -> None:
    """Counts as parquet, samples × genes of the shipped sets and a background."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    genes, counts = draw_counts(patients, seed=0)
    table = pa.table([patients.ids, *counts.astype("float32")], names=["sample_id", *genes])
    pq.write_table(table, "expression.parquet", use_dictionary=False)


def write_slide_stages(made: plan.Plan) -> None:
    """Batch receipts of all slide stages, and the files of every slide that later stages read."""
    recipes = {stage: stages.recipe(stage, made.config) for stage in SLIDE_STAGES}
    number = {slide: index for index, slide in enumerate(made.sheets.slides)}
    for batch in made.batches:
        done = [slide_receipts(slide, number[slide.slide_id], recipes) for slide in made.slides(batch)]
        for stage in SLIDE_STAGES:
            receipts = [own[stage] for own in done]
            batches.write_batch(made.results / "receipts" / stage / f"{batch}.json", stage, receipts)
    for slide, index in number.items():
        folder = made.results / "slides" / slide
        if index % UNREADABLE:
            folder.mkdir(parents=True)
            (folder / "slide.json").write_text(json.dumps(slide_facts(slide), indent=1), encoding="utf-8")
            store = made.results / store_path(ENCODER, slide)
            store.mkdir(parents=True)
            (store / "zarr.json").write_bytes(group_node({RECORD: store_record(slide)}))
    # The report reads the encoder's recipe from the first store.
    first = min((made.results / store_path(ENCODER, "x")).parent.iterdir())
    tile = Group(np.ones((1, DIM), np.float16), np.zeros((1, 2), np.int64))
    write_store(first, {"10x": tile, "20x": tile}, {"encoder": ENCODER})


def slide_facts(slide: str) -> dict[str, Any]:
    """The content of slide.json of a 20x scan."""
    sources = ("openslide.mpp-x", "aperio.MPP", "objective power")
    levels = [{"width": 40_000 // d, "height": 30_000 // d, "downsample": float(d)} for d in (1, 4, 16)]
    candidates = [{"source": source, "x": 0.5, "y": 0.5} for source in sources]
    return {
        "vendor": "aperio",
        "reader": "openslide",
        "width": 40_000,
        "height": 30_000,
        "levels": levels,
        "mpp": {"x": 0.5, "y": 0.5, "source": sources[0], "candidates": candidates, "conflicts": []},
        "objective_power": 20.0,
        "icc_profile": False,
        "fingerprint": digest(slide),
    }


def store_record(slide: str) -> dict[str, Any]:
    """The completion record of a store, of which there is nothing else."""
    groups = {name: {"rows": n, "valid": n, "dim": DIM, "dtype": "float16"} for name, n in kept_tiles(slide).items()}
    files = {f"{name}/X/c/0/0": digest([slide, name]) for name in groups}
    record = {"format": FORMAT, "key": digest(slide), "groups": groups, "files": files}
    return {**record, "digest": digest(record)}


def kept_tiles(slide: str) -> dict[str, int]:
    """Kept tiles by magnification."""
    coarse = 1_000 + int(digest(slide), 16) % 3_000
    return {"10x": coarse, "20x": 4 * coarse}


def slide_receipts(slide: Slide, index: int, recipes: dict[str, str]) -> dict[str, Receipt]:
    """Receipts of a slide by stage, as the stages fill them in."""
    name, kept = slide.slide_id, kept_tiles(slide.slide_id)
    done = {stage: Receipt(name, stage, "ok", recipe, seconds=10.0) for stage, recipe in recipes.items()}
    here, file = f"slides/{name}", digest(name)
    inspect, tissue, tiles, features = done.values()
    inspect.inputs = {"slide": file, "mpp": "none"}
    inspect.outputs = {f"{here}/slide.json": digest([name, "slide"])}
    inspect.counts = {"width": 40_000, "height": 30_000}
    inspect.info = {"mpp": [0.5, 0.5], "mpp_source": "openslide.mpp-x", "reader": "openslide", "vendor": "aperio"}
    if index % WARNED == 1:
        inspect.warnings = [f"{slide.path}: objective power 20 and 0.5 µm per pixel do not agree with the level sizes"]
    tissue.inputs = {"slide": file}
    tissue.outputs = {f"{here}/{kind}": digest([name, kind]) for kind in ("tissue.geojson", "overview.jpg")}
    tissue.counts = {"tissue_mm2": kept["10x"] * 0.0502, "regions": 4, "holes": 12}
    tissue.info = {"edited": False, "mpp": 8.0}
    tiles.inputs = {"tissue": digest([name, "tissue.geojson"]), "slide": file}
    tiles.outputs = {f"{here}/{kind}": digest([name, kind]) for kind in ("tiles.parquet", "quality.json")}
    for level, number in kept.items():
        flagged = dict.fromkeys((f"{flag}_{level}" for flag in FLAGS), number // 50)
        tiles.counts |= {f"tiles_{level}": number + number // 4, f"kept_{level}": number} | flagged
    amber = index % AMBER == 2
    reasons = ["14% of the tissue is flagged (pen 3%, blur 9%, fold 2%)"] if amber else []
    quality = {"light": "amber" if amber else "green", "reasons": reasons}
    tiles.info = {"size": 224, "overlap": 0.0, "edited": False, "quality": quality}
    features.inputs = {"tiles": digest([name, "tiles.parquet"]), "slide": file, ENCODER: digest(ENCODER)}
    features.outputs = {store_path(ENCODER, name): store_record(name)["digest"]}
    features.counts = {**kept, "unreadable": 0}
    features.info = {"dim": DIM, "encoder": ENCODER, "patient_id": slide.patient_id}
    if index % UNREADABLE == 0:
        set_aside(list(done.values()), QUARANTINED, f"{slide.path}: no reader opens it (openslide: unsupported)")
    elif index % BARE == 3:
        set_aside([tissue, tiles, features], EMPTY, "no tissue was found at 8 µm per pixel")
    return done


def set_aside(receipts: list[Receipt], state: str, reason: str) -> None:
    """Make a slide's receipts those of a slide that the first of these stages could not use."""
    for receipt in receipts:
        receipt.state, receipt.reason, receipt.mend = state, reason, "look at the slide: histill doctor"
        receipt.outputs, receipt.counts, receipt.info = {}, {}, {"stage": receipts[0].stage}


def settle(snakemake: list[str]) -> None:
    """Run what is left, bring the times of all outputs in order, and have Snakemake record how each was made."""
    # All at once: choosing one of 2,000 jobs takes Snakemake most of a second, as often as one has ended.
    for how in ((), ("--touch", "--forceall", "--cores", "512", "--scheduler", "greedy")):
        subprocess.run([*snakemake, *how, "--quiet", "all"], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def stage_commands(config: dict[str, Any]) -> Iterator[str]:
    """The commands of the stages after the slides, in order."""
    yield from (f"histill collect {stage}" for stage in SLIDE_STAGES)
    if config["cohort"]["expression"]:
        yield "histill transcriptome"
    yield from ("histill cohort", "histill audit")
    for task in config["tasks"]:
        out = f"results/receipts/train/{task}/linear-rna-train.json"
        yield f"histill train --task {task} --method linear-rna --stage train --out {out}"
        yield f"histill predict-stage --task {task}"
        yield f"histill evaluate --task {task}"
    yield "histill report"


def measure(name: str, command: list[str]) -> str:
    """Run a command, print what it took, and return what it said."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    wall, cpu = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    if status:
        raise SystemExit(f"{shlex.join(command)[:300]} failed:\n{text[-3000:]}")
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {usage.ru_maxrss / 1024:.0f} |", end="", flush=True)
    return text


def measure_plan(name: str, snakemake: list[str]) -> None:
    """As `measure`, of a dry run, with the jobs it plans."""
    text = measure(f"`snakemake -n`, {name}", [*snakemake, "-n"])
    jobs = Counter(re.findall(r"^(?:local)?rule (\w+):", text, re.MULTILINE))
    jobs.pop("all", None)
    print(f" {', '.join(f'{job} {count}' for job, count in jobs.items()) or 'nothing'} |", flush=True)


def change_and_plan(snakemake: list[str]) -> None:
    """Plan the finished cohort, and again after each change, which is then taken back."""
    measure_plan("finished", snakemake)
    sheet = Path("slides.csv").read_text(encoding="utf-8")
    header, *lines = sheet.splitlines()
    patient = next(csv.DictReader([header, lines[-1]]))["patient_id"]
    times = os.stat("slides.csv")
    for name, changed in (
        ("one slide more", [header, *lines, ",".join(row("another-slide", patient).values())]),
        ("one slide less", [header, *lines[:-1]]),
    ):
        Path("slides.csv").write_text("\n".join(changed) + "\n", encoding="utf-8")
        measure_plan(name, snakemake)
    Path("slides.csv").write_text(sheet, encoding="utf-8")
    os.utime("slides.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    measure_plan("`tiles.overlap` changed", [*snakemake, "--config", "tiles={overlap: 0.25}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where to make the cohort, and leave it; else it is removed")
    parser.add_argument("--models", action="store_true", help="with transcriptomes, training and evaluation")
    given = parser.parse_args()
    folder = Path(given.folder or tempfile.mkdtemp()).resolve()
    script = [sys.executable, "-m"]
    snakemake = [*script, "snakemake", "-s", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--cores", "1"]
    try:
        # In a process of its own: what a process has taken counts as taken by those that it starts.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, given.slides, given.models))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(maker.exitcode)
        os.chdir(folder)
        config = configuration.load("config.yaml")
        print(f"{given.slides:,} slides, {len(plan.load('config.yaml').batches)} batches\n")
        print("| command | wall s | CPU s | MB | plans |\n|---|---|---|---|---|")
        measure("`histill validate`", [*script, "histill", "validate"])
        print(" |")
        for command in stage_commands(config):
            measure(f"`{command.split(' --')[0]}`", [*script, *command.split()])
            print(" |")
        settle(snakemake)
        change_and_plan(snakemake)
        print(f"\nreport.html: {os.stat('results/report.html').st_size / 1e6:.1f} MB")
    finally:
        os.chdir("/")
        if not given.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""What every stage gives on a tiny fixed input, as numbers that another image library or platform leaves alone.

Inputs come from formulas, not from random generators, and pictures are compared by means of blocks, not by bytes.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from histill.batches import write_batch
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.cohort.tasks import Task
from histill.config import complete
from histill.provenance import Receipt, digest, read_json

SIDE = 1024  # pixels of the slide, at 0.5 µm per pixel
TILE = 64
SURVIVAL = Task("os", "survival", ("months", "event"))
CLASSES = Task("dx", "classification", ("diagnosis",))


def waves(rows: int, columns: int, phase: float = 0.0) -> np.ndarray:
    """Fixed numbers in (−1, 1) [rows, columns] without a visible period."""
    index = np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)
    return np.sin(1.7 * index + 0.013 * index**2 + phase)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Shape, mean, spread and a weighted sum that tells the order of the values of an array."""
    values = np.asarray(values, dtype=np.float64)
    weight = np.cos(np.arange(values.size)).reshape(values.shape)
    numbers = {"mean": values.mean(), "std": values.std(), "order": (values * weight).mean()}
    return {"shape": list(values.shape), **{name: round(float(value), 6) for name, value in numbers.items()}}


def rounded(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]


def settings(**sections: Any) -> dict[str, Any]:
    return complete({"results": "results", "cohort": {}, "on_error": "fail", **sections})


def demo(folder: Path) -> dict[str, Any]:
    """The sheets, one painted slide as block means, and the counts."""
    from histill.demo import design, expression, painter

    options = {"patients": 12, "seed": 1, "size_px": 1024}
    patients = design.design(options)
    marked = [slide for patient in patients for slide in patient.slides if slide.pen or slide.blurred]
    picture = painter.paint(marked[0])
    blocks = cv2.resize(picture, (6, 6), interpolation=cv2.INTER_AREA)
    genes, samples, counts = expression.counts(
        options, patients, expression.programme_genes(), expression.background_genes()
    )
    slides = [{**row, "path": Path(row["path"]).name} for row in design.slide_rows(patients, folder)]
    return {
        "clinical": design.clinical_rows(patients)[:3],
        "clinical_digest": digest(design.clinical_rows(patients)),
        "slides_digest": digest(slides),
        "picture_shape": list(picture.shape),
        "picture": [round(float(value), 1) for value in blocks.astype(float).ravel()],
        "genes": len(genes),
        "samples": digest(samples),
        "log_counts": summary(np.log1p(counts)),
    }


def picture() -> np.ndarray:
    """Tissue with nuclei, a hole, an area out of focus and a stroke of blue ink; RGB uint8 [SIDE, SIDE, 3]."""
    image = np.full((SIDE, SIDE, 3), 243, np.uint8)
    inside = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(inside, (SIDE // 2, SIDE // 2), (430, 400), 0, 0, 360, 1, -1)
    cv2.circle(inside, (560, 330), 110, 0, -1)
    image[inside > 0] = (222, 160, 196)
    shift = waves(SIDE // 24, SIDE // 24)
    for row in range(SIDE // 24):
        for column in range(SIDE // 24):
            x, y = (int(24 * place + 12 + 6 * shift[row, column]) for place in (column, row))
            if inside[y, x]:
                cv2.circle(image, (x, y), 5 + (row + column) % 4, (96, 62, 140), -1)
    image[560:830, 520:800] = cv2.GaussianBlur(image, (0, 0), 9)[560:830, 520:800]
    image[600:680, 100:420] = (40, 70, 170)
    return image


def slide_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """Stages `inspect` to `features` on one slide."""
    import tifffile

    from histill.features import extract
    from histill.features.store import read_group
    from histill.slides import inspect, segment, table, tile

    path = folder / "slide.tiff"
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    with tifffile.TiffWriter(path) as file:
        for level in (1, 2, 4):
            pixels = cv2.resize(picture(), (SIDE // level, SIDE // level), interpolation=cv2.INTER_AREA)
            kind = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "subfiletype": int(level > 1)}
            file.write(pixels, **kind, **resolution)
    config = settings(tiles={"size": TILE}, features={"allow_off_recipe": True})
    slides = [Slide("s", "p", str(path))]
    receipts = [stage.run(slides, config=config, results=folder)[0] for stage in (inspect, segment, tile, extract)]
    facts = read_json(folder / "slides" / "s" / "slide.json")
    columns = table.read(folder / "slides" / "s" / "tiles.parquet")
    overview = cv2.imread(str(folder / "slides" / "s" / "overview.jpg"))
    store = folder / "features" / "colour-texture" / "s.zarr"
    groups = {name: read_group(store, name) for name in ("10x", "20x")}
    return {
        "inspect": {key: value for key, value in facts.items() if key != "fingerprint"},
        "tissue": {
            **receipts[1].counts,
            "overview": cv2.resize(overview, (4, 4), interpolation=cv2.INTER_AREA).astype(float).ravel().tolist(),
        },
        "tiles": {
            "counts": receipts[2].counts,
            "boxes": {name: summary(columns[name]) for name in ("x", "y", "width", "height", "parent")},
            "tissue": round(float(columns["tissue"].sum()), 3),
            "kept": [int(row) for row in np.flatnonzero(columns["keep"][columns["magnification"] == "10x"])],
        },
        "features": {
            "rows": {name: list(group.x.shape) for name, group in groups.items()},
            "tile": {name: summary(group.obs["tile"]) for name, group in groups.items()},
            "parent": {name: summary(group.obs["parent"]) for name, group in groups.items()},
            "feature_mean": {name: rounded(group.x.astype(float).mean(axis=0)) for name, group in groups.items()},
            "feature_std": {name: rounded(group.x.astype(float).std(axis=0)) for name, group in groups.items()},
        },
    }


def features_import(folder: Path) -> dict[str, Any]:
    """A table of slide vectors, one value missing."""
    from histill.features.imports import import_table
    from histill.features.store import read_group

    path = folder / "vectors.csv"
    path.write_text("slide_id,patient_id,a,b\ns1,p1,1.5,70000\ns2,p1,,-2\ns3,p2,0.25,3\n")
    receipts = import_table(path, name="vectors", results=folder, recipe="r", on_error="fail")
    groups = [read_group(folder / "features" / "vectors" / f"{r.slide}.zarr", "slide") for r in receipts]
    return {
        "receipts": [[r.slide, r.state, r.counts, r.info, r.warnings] for r in receipts],
        "values": [[None if np.isnan(value) else float(value) for value in group.x[0]] for group in groups],
        "names": groups[0].var_names,
    }


def transcriptome(folder: Path) -> dict[str, Any]:
    """Counts with genes in rows: a symbol twice, a counter of unmapped reads, a gene without a symbol."""
    import h5py

    from histill.transcriptome import stage
    from histill.transcriptome.gene_sets import SHIPPED, members, read_gmt

    genes = [*members(read_gmt(SHIPPED / "tumor.gmt"))[:12], *members(read_gmt(SHIPPED / "microenvironment.gmt"))[-12:]]
    names = [*genes, genes[0], "__no_feature", "?"]
    values = np.round(np.exp(5 + 2 * waves(len(names), 4))).astype(int)
    path = folder / "counts.tsv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["gene", "P2", "P1", "P4", "P3"])
        writer.writerows([name, *row] for name, row in zip(names, values.tolist(), strict=True))
    options = {"matrix": {"unit": "counts"}, "gene_sets": {"min_genes": 1, "small_sets": "keep"}}
    receipt = stage.run(path=path, config=settings(transcriptome=options), results=folder)
    names = pq.read_table(folder / stage.GENES).to_pydict()
    patients, matrix, symbols = stage.by_patient(folder / stage.OUTPUT)
    with h5py.File(folder / stage.OUTPUT) as file:
        counts = file["layers/counts"][:]
    return {
        "counts": receipt["counts"],
        "dropped": {
            n: why
            for n, fate, why in zip(*(names[k] for k in ("given", "fate", "reason")), strict=True)
            if fate == "dropped"
        },
        "coverage": {space: [c["found"] for c in sets.values()] for space, sets in receipt["coverage"].items()},
        "patients": patients,
        "genes": digest(symbols),
        "x": summary(matrix),
        "layer": summary(counts),
    }


def cohort(folder: Path) -> dict[str, Any]:
    """Twenty-four patients: several slides, slides that failed, no slide, no outcome; and folds of two repeats."""
    from histill.cohort import stage
    from histill.cohort.assignment import assign

    patients = [f"P{number:02d}" for number in range(24)]
    tasks = {task.name: task for task in (SURVIVAL, CLASSES)}
    sheets = Sheets(clinical=Clinical(columns=["patient_id", "months", "event", "diagnosis"]), tasks=tasks)
    receipts = []
    for number, patient in enumerate(patients):
        known = {"months": str(5 + 3 * number), "event": str(number % 3 % 2), "diagnosis": "ABB"[number % 3]}
        sheets.clinical.rows[patient] = {} if number == 7 else known
        sheets.clinical.lines[patient] = number + 2
        for copy in range(0 if number == 3 else 1 + (number % 5 == 0)):
            slide = f"{patient}-{copy}"
            sheets.slides[slide] = Slide(slide, patient, f"{slide}.svs", site="north" if number % 2 else None)
            state = "quarantined" if number in (4, 10) and copy == 0 else "ok"
            receipts.append(Receipt(slide, "features", state, "r", outputs={slide: "d"}))
    write_batch(folder / "receipts" / "features.json", "features", receipts)
    receipt = stage.run(sheets=sheets, config=settings(folds={"n": 3}), results=folder)
    table = pq.read_table(folder / "cohort" / "patients.parquet")
    apart = {"column": "months", "values": [5, 35]}
    return {
        "repeated": assign(patients, sheets, settings(folds={"n": 3, "repeats": 2, "external": apart})["folds"]).folds,
        "schema": [f"{field.name}: {field.type}" for field in table.schema],
        "table": digest(json.loads(json.dumps(table.to_pydict()))),
        "folds": read_json(folder / "cohort" / "folds.json"),
        "counts": receipt["counts"],
    }


def audit(folder: Path) -> dict[str, Any]:
    """Twelve patients, six of whom are one with another: by file, array, picture, profile (exactly, nearly) and id."""
    import pyarrow as pa

    from histill.cohort import audit as stage
    from histill.features.store import Group, store_path, write_store
    from histill.provenance import write_json
    from histill.transcriptome import stage as transcriptome

    patients = [f"P{number:02d}" for number in range(11)] + ["p_10"]
    x, receipts, slides = 5 + waves(12, 200), [], [f"{patient}-1" for patient in patients]
    pictures = waves(12 * 40, 40).reshape(12, 40, 40)
    for number, slide in enumerate(slides):
        array = waves(4, 6, 0.1 * max(1, number)).astype(np.float16)
        write_store(folder / store_path("colour-texture", slide), {"20x": Group(array, np.zeros((4, 2), np.int64))}, {})
        file = "one" if number in (2, 3) else slide
        receipts.append(Receipt(slide, "features", "ok", "r", inputs={"slide": file}))
        overview = cv2.resize(pictures[4 if number == 5 else number], (160, 160 + 40 * (number == 5)))
        (folder / "slides" / slide).mkdir(parents=True)
        cv2.imwrite(str(folder / "slides" / slide / "overview.jpg"), 128 + 100 * overview)
    x[7], x[9] = x[6], x[8] + 0.05 * waves(1, 200, 3)
    (folder / "transcriptome").mkdir()
    genes = [f"G{number}" for number in range(200)]
    transcriptome.write(folder / transcriptome.OUTPUT, x, patients, patients, genes, {})
    write_batch(folder / "receipts" / "features.json", "features", receipts)
    table = {"patient_id": patients, "slides": [[slide] for slide in slides], "has_rna": [True] * 12}
    (folder / "cohort").mkdir()
    pq.write_table(pa.table(table), folder / "cohort" / "patients.parquet")
    folds = {patient: [number % 3] for number, patient in enumerate(patients)}
    write_json(folder / "cohort" / "folds.json", {"n": 3, "repeats": 1, "assignment": folds})
    stage.run(config=settings(folds={"n": 3, "audit": "warn"}), results=folder)
    return read_json(folder / stage.OUTPUT)


def evaluate(folder: Path) -> dict[str, Any]:
    """All numbers of fixed predictions: points, intervals, differences, curves."""
    from histill.evaluation.stage import run
    from tests.evaluation.fake import write_cohort

    config = write_cohort(folder, patients=40, folds=2, methods={"run": ["disentangled", "wsi-only", "linear-slide"]})
    found = {}
    for task in config["tasks"]:
        report = run(task=task, config=config, results=folder)
        found[task] = {"paired": report["paired"]}
        found[task]["comparisons"] = [
            {key: entry[key] for key in ("a", "b", "value", "low", "high", "p", "p_holm")}
            for entry in report["comparisons"]
        ]
        found[task]["calibration"] = report["calibration"]["models"]["wsi-only"]
        found[task]["decisions"] = [
            {name: summary(values) for name, values in entry["models"].items()}
            for entry in report["decision_curves"]["of"]
        ]
        if task == "survival":
            found[task]["horizons"] = report["horizons"]["models"]
            found[task]["curves"] = {
                name: [
                    curve["log_rank_p"],
                    {group: summary(line["survival"]) for group, line in curve["groups"].items()},
                ]
                for name, curve in report["kaplan_meier"]["models"].items()
            }
        else:
            rates = report["roc"]["true_positive_rate"]
            found[task]["curves"] = {name: summary(values) for name, values in rates.items()}
    return found

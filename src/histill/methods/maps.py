"""Which tile a distilled student gave to which subspace, and how much it counted there: tables beside predictions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from histill.data.bags import BagReader, Instances
from histill.features.store import read_group
from histill.provenance import atomic_file

TILES, TOKENS = "subspaces.parquet", "kept.parquet"


def write(
    folder: Path, instances: Instances, patients: list[str], subspaces: list[str], outputs: Iterable[dict[str, Any]]
) -> None:
    """Write `subspaces.parquet`, a row a tile, and `kept.parquet`, a row a patient and magnification.

    Memory is that of one patient: `subspaces.parquet` has a row group a patient.

    Columns of `subspaces.parquet`: `patient_id`, `slide_id`, `magnification`; `x`, `y`, level-0 pixels of the tile's
    top-left corner; `tile`, its row in `tiles.parquet` (−1 for imports); `p:<subspace>`, its share in the subspace;
    `w:<subspace>`, its attention weight there. Weights sum to 1 over a patient's tiles of a magnification; where each
    slide was a bag of its own, every slide that has tiles holds an equal part of that.

    Columns of `kept.parquet`: `patient_id`, `magnification`; `tiles`, of all slides; `kept:<subspace>`, merged tokens
    that stand for them.

    Parameters
    ----------
    instances
        Bags of the patients.
    outputs
        Of the student, a dict a bag in the order of `instances`: `assignment` level -> [1, N, K], `attention`
        subspace -> level -> [1, N], `kept` level -> [1, K], as tensors.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, counted, found = _schema(subspaces), [], iter(outputs)
    with atomic_file(folder / TILES) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for number, patient in enumerate(patients):
            names = [instances.names[bag] for bag in np.flatnonzero(instances.patient == number)]
            bags = [(name, next(found)) for name in names]
            tiles = _tiles_of(instances.bags, patient, bags, schema)
            if len(tiles):
                writer.write_table(tiles, row_group_size=len(tiles))
            counted += _tokens_of(instances.bags, patient, bags)
    text = [(name, pa.string()) for name in ("patient_id", "magnification")]
    numbers = [(name, pa.int64()) for name in ("tiles", *_columns("kept", subspaces))]
    with atomic_file(folder / TOKENS) as part:
        pq.write_table(pa.Table.from_pylist(counted, schema=pa.schema([*text, *numbers])), part)


def _tiles_of(reader: BagReader, patient: str, bags: list[tuple[str, dict[str, Any]]], schema):
    """Rows of a patient's bags, each with what the student said of it."""
    import pyarrow as pa

    tables = [schema.empty_table()]
    for level in reader.levels:
        counts = [reader.count(name, level) for name, _ in bags]
        part = 1 / max(1, np.count_nonzero(counts))
        for (name, output), count in zip(bags, counts, strict=True):
            rows = _places(reader, name, level) | _values(output, level, count, part)
            rows["patient_id"] = [patient] * count
            tables.append(pa.table({field.name: rows[field.name] for field in schema}, schema=schema))
    return pa.concat_tables(tables)


def _tokens_of(reader: BagReader, patient: str, bags: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a magnification: tiles of a patient's bags, and the tokens that stand for them."""
    rows = []
    for level in reader.levels:
        tiles = sum(reader.count(name, level) for name, _ in bags)
        row = {"patient_id": patient, "magnification": level, "tiles": tiles}
        for index, k in enumerate(bags[0][1]["attention"]):
            row[f"kept:{k}"] = sum(int(output["kept"][level][0, index]) for _, output in bags)
        rows.append(row)
    return rows


def _schema(subspaces: list[str]):
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in ("patient_id", "slide_id", "magnification")),
            *((name, pa.int64()) for name in ("x", "y")),
            ("tile", pa.int32()),
            *((name, pa.float16()) for name in _columns("p", subspaces)),
            *((name, pa.float32()) for name in _columns("w", subspaces)),
        ]
    )


def _columns(prefix: str, subspaces: list[str]) -> list[str]:
    return [f"{prefix}:{subspace}" for subspace in subspaces]


def _places(reader: BagReader, bag: str, level: str) -> dict[str, Any]:
    """What and where the valid tiles of a bag are, in the order of its features."""
    slides, spatial, tiles = [], [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int32)]
    for slide in reader.slides_with(bag, level):
        group = read_group(reader.folder / f"{slide}.zarr", level, features=False)
        rows = np.flatnonzero(group.valid)
        slides += [slide] * len(rows)
        spatial.append(group.spatial[rows])
        known = group.obs.get("tile", np.full(len(group.spatial), -1))
        tiles.append(known[rows].astype(np.int32))
    x, y = np.concatenate(spatial).astype(np.int64).T
    return {"slide_id": slides, "magnification": [level] * len(slides), "x": x, "y": y, "tile": np.concatenate(tiles)}


def _values(output: dict[str, Any], level: str, count: int, part: float) -> dict[str, np.ndarray]:
    """Assignments and weights of the `count` real tiles of a bag, which is a `part` of its patient."""
    assignment = output["assignment"][level][0, :count].cpu().numpy().astype(np.float16)
    values = {f"p:{k}": assignment[:, index] for index, k in enumerate(output["attention"])}
    weights = {f"w:{k}": by_level[level][0, :count].cpu().numpy() for k, by_level in output["attention"].items()}
    return values | {name: (weight * part).astype(np.float32) for name, weight in weights.items()}

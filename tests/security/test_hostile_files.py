"""Files that mean harm are refused with a message, within bounded memory and time, and nothing in them is run.

Slides and bags that are bombs, cut off or point elsewhere: `tests/slides/test_damaged.py` and
`tests/features/test_bag_files.py`.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from histill import config as configuration
from histill.cohort.sheets import Slide
from histill.encoders.states import read_state
from histill.errors import HistillError
from histill.features.bag_files import read_bag
from histill.features.store import read_group
from histill.provenance import Receipt, read_json
from histill.slides.regions import read as read_regions
from histill.transcriptome import bounds
from histill.transcriptome.read import load

MEMORY = 2 << 30  # bytes of address space beyond what the imports have taken
SECONDS = 60
CANARY = "canary"


class Harm:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, folder: Path):
        self.path = str(folder / CANARY)

    def __reduce__(self):
        return open, (self.path, "w")


def refused(read: Callable[[Path], object], path: Path) -> str:
    """What a reader says against a file, in a child of limited memory and time."""
    parent, child = multiprocessing.get_context("fork").Pipe()

    def work() -> None:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            read(path)
            child.send("")
        except HistillError as error:
            child.send(str(error))
        except BaseException as error:
            child.send(f"NOT TOLD: {type(error).__name__}: {error}"[:500])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert parent.poll(SECONDS), f"{path.name} took longer than {SECONDS} s"
    said = parent.recv()
    process.join()
    assert said, f"{path.name} was read"
    assert not said.startswith("NOT TOLD"), said
    assert path.name in said
    return said


def zeros(path: Path, size: int, opener: Callable, head: bytes = b"gene\ta\tb\n", line: bytes = b"0\t0\t0\n") -> Path:
    """A packed table of `size` bytes of zeros, in one line where `line` has no line break."""
    block = line * ((1 << 20) // len(line))
    with opener(path) as file:
        file.write(head)
        for _ in range(size >> 20):
            file.write(block)
    return path


def gz(path: Path):
    return gzip.open(path, "wb", compresslevel=9)


class Packed:
    """The one member of a zip."""

    def __init__(self, path: Path):
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.member = self.archive.open("table.tsv", "w", force_zip64=True)

    def __enter__(self):
        return self.member

    def __exit__(self, *_: object) -> None:
        self.member.close()
        self.archive.close()


@pytest.fixture
def small(monkeypatch) -> int:
    """A size, in bytes, from which packed tables are compared with what they unpack to: making bombs takes time."""
    monkeypatch.setattr(bounds, "LEAST_BYTES", 16 << 20)
    return bounds.LEAST_BYTES


@pytest.mark.parametrize("name", ["lines.tsv.gz", "line.tsv.gz", "table.tsv.zip"])
def test_packed_tables_of_expression(name, tmp_path, small):
    line = b"0" * 1024 if name.startswith("line.") else b"0\t0\t0\n"
    path = zeros(tmp_path / name, 4 * small, Packed if name.endswith("zip") else gz, line=line)
    assert path.stat().st_size < 1 << 20
    assert "unpack to" in refused(load, path)


def test_parquet_of_one_value(tmp_path, small):
    rows = small // 2
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([0.0]))
    path = tmp_path / "table.parquet"
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in "abc"]), compression="zstd") as writer:
        plain = column.cast(pa.float64()).slice(0, 1_000_000)
        table = pa.table(dict.fromkeys("abc", plain))
        for _ in range(rows // 1_000_000):
            writer.write_table(table)
    assert path.stat().st_size < 1 << 20
    assert "unpack to" in refused(load, path)


def write_h5ad(path: Path, write_x: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_x(file)
    return path


def test_h5ad_of_declared_sizes_and_of_other_files(tmp_path):
    def dense(file: h5py.File) -> None:
        file.create_dataset("X", (10**6, 10**5), np.float32, chunks=(1000, 1000), compression="gzip")

    def sparse(file: h5py.File) -> None:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (10**6, 10**6)})
        group["data"], group["indices"], group["indptr"] = np.zeros(1), np.zeros(1, int), np.zeros(10**6 + 1, int)

    def elsewhere(file: h5py.File) -> None:
        file["X"] = h5py.ExternalLink("/etc/passwd", "X")

    def raw(file: h5py.File) -> None:
        file.create_dataset("X", (4,), np.float32, external=[("/etc/hostname", 0, 16)])

    assert "unpack to" in refused(load, write_h5ad(tmp_path / "dense.h5ad", dense))
    assert "unpack to" in refused(load, write_h5ad(tmp_path / "sparse.h5ad", sparse))
    assert "another file" in refused(load, write_h5ad(tmp_path / "link.h5ad", elsewhere))
    assert "another file" in refused(load, write_h5ad(tmp_path / "raw.h5ad", raw))


@pytest.mark.parametrize("name", ["bag.pt", "bag.h5", "weights.pt", "weights.bin", "weights.safetensors", "packed.pt"])
def test_objects_are_not_loaded(name, tmp_path):
    path = tmp_path / name
    harm = Harm(tmp_path)
    if name in ("bag.pt", "weights.pt"):
        torch.save({"features": torch.zeros(2, 2), "harm": harm}, path)
    elif name == "packed.pt":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(harm))
    else:
        path.write_bytes(pickle.dumps({"harm": harm}))
    read = (
        read_state if name.startswith(("weights", "packed")) else lambda own: read_bag(Slide("s", "p", str(own)), "n")
    )
    refused(read, path)
    assert not (tmp_path / CANARY).exists()


def test_a_store_with_a_codec_of_objects_is_refused(tmp_path):
    """Stores are read by histill's own reader, which knows two layouts and no codec that makes objects."""
    node = {
        "zarr_format": 3, "node_type": "array", "shape": [1], "data_type": "object", "fill_value": 0, "attributes": {},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
        "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "pickle"}],
    }  # fmt: skip
    path = tmp_path / "s.zarr"
    for name in ("", "10x", "10x/X"):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name / "zarr.json").write_text(json.dumps(node))
    (path / "10x" / "X" / "c").mkdir()
    (path / "10x" / "X" / "c" / "0").write_bytes(pickle.dumps(Harm(tmp_path)))
    refused(lambda own: read_group(own, "10x"), path)
    assert not (tmp_path / CANARY).exists()


DEEP = "[" * 200_000 + "]" * 200_000
LONG = '{"a": ' + "9" * 10_000 + "}"


@pytest.mark.parametrize(
    "text", [DEEP, LONG, "{", "\0", '{"a": "\\ud800"}x'], ids=["deep", "long", "cut", "nul", "more"]
)
def test_json_that_is_none_or_too_deep(text, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text)
    assert "valid" in refused(read_json, path)
    assert "valid" in refused(configuration.read, path) or "deep" in refused(configuration.read, path)
    refused(lambda own: read_regions(own, (10, 10)), path)
    assert Receipt.read(path) is None


def bomb(levels: int) -> str:
    """Each line names the one before ten times."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12),
        "a: &a [*a]",
        "a: " + DEEP,
        "a: !!python/object/apply:os.system ['touch canary']",
        "a: {" * 500 + "}" * 500,
    ],
    ids=["aliases", "itself", "deep", "object", "levels"],
)
def test_configs_that_grow_or_make_objects(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    refused(configuration.load, path)
    assert not (tmp_path / CANARY).exists()
    anchored = {"tasks": {"a": {"type": "classification", "label": "x"}}}
    path.write_text(yaml.safe_dump(anchored) + "base: &b {n: 3}\nfolds: *b\n")
    assert configuration.read(path)["folds"] == {"n": 3}  # an alias is no crime


def test_the_search_for_harm_finds(tmp_path):
    """The object does do harm where it is loaded."""
    pickle.loads(pickle.dumps(Harm(tmp_path))).close()
    assert (tmp_path / CANARY).exists()

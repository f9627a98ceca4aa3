"""A folder with sheets to run the project's own Snakefile in, and what to search in what a run has written."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

ROOT = Path(__file__).resolve().parents[2]


def snakemake(work: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the project's workflow in a folder that holds a config.yaml."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": path, **environment}
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
    return subprocess.run(
        [*command, "--cores", "1", *arguments], cwd=work, env=env, capture_output=True, text=True, timeout=600
    )


def write_sheet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A csv as a spreadsheet saves it: whatever is in a cell is quoted if it must be."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_config(work: Path, config: Mapping[str, Any]) -> None:
    (work / "config.yaml").write_text(yaml.safe_dump(dict(config), allow_unicode=True), encoding="utf-8")


def write_slide(path: Path, width: int, colour: tuple[int, int, int] = (200, 120, 170)) -> None:
    """A tiled TIFF of one colour at 0.5 µm per pixel; its width tells which one it is."""
    pixels = np.full((256, width, 3), colour, np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER"
    )


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """(path, content) of every file below a folder that is no link; names of files and folders come as content too."""
    for path in sorted(folder.rglob("*")):
        yield path, str(path.relative_to(folder)).encode("utf-8", "surrogateescape")
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()

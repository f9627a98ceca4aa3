"""What a results folder says of itself: its config, and the receipts of its stages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from histill.batches import collect
from histill.config import fill
from histill.errors import HistillError
from histill.methods.train import run_folder
from histill.provenance import Receipt, read_json
from histill.software import FOLDER

RUN = re.compile(r"fold(\d+)-seed(\d+)")


def results_of(path: Path) -> Path:
    """The results folder that a path lies in.

    Raises
    ------
    HistillError
        If there is no such path, or no folder above it holds a run.
    """
    if not path.exists():
        raise HistillError(f"{path} does not exist", mend="name a file or folder of a run's results")
    place = path.resolve()
    for folder in (place, *place.parents):
        if (folder / "config.json").is_file() and (folder / "receipts").is_dir():
            return folder
    raise HistillError(
        f"{path} is not part of a run: no folder above it has config.json and receipts/",
        mend="name a file or folder below the results folder of a run (config key 'results')",
    )


class Records:
    """Receipts below a results folder; absent ones are None, so that a trace says what is missing."""

    def __init__(self, results: Path):
        self.results = results
        self.config = fill(read_json(results / "config.json"))
        self._slides: dict[str, dict[str, Receipt]] = {}

    @property
    def imports(self) -> bool:
        """Whether features come from elsewhere."""
        return self.config["features"]["source"] != "extract"

    @property
    def has_rna(self) -> bool:
        return "demo" in self.config or bool(self.config["cohort"]["expression"])

    def receipt(self, name: str) -> dict[str, Any] | None:
        """`receipts/<name>.json`."""
        return self._read(self.results / "receipts" / f"{name}.json")

    def slides(self, stage: str) -> dict[str, Receipt]:
        """Receipts of a slide stage by slide: of the whole stage, or of the batches that are done."""
        if stage not in self._slides:
            whole = self.results / "receipts" / f"{stage}.json"
            paths = [whole] if whole.exists() else sorted((self.results / "receipts" / stage).glob("*.json"))
            self._slides[stage] = {receipt.slide: receipt for receipt in collect(paths)}
        return self._slides[stage]

    def run(self, task: str, folder: str, stage: str, fold: int, seed: int) -> dict[str, Any] | None:
        """Receipt of a training run."""
        return self._read(run_folder(self.results, task, folder, stage, fold, seed) / "receipt.json")

    def predictions(self, task: str, folder: str, stage: str, fold: int, seed: int) -> dict[str, Any] | None:
        """What a run predicted: `key` and `outputs`."""
        return self._read(run_folder(self.results, task, folder, stage, fold, seed) / "predictions.json")

    def software(self, digest: str) -> dict[str, Any] | None:
        """The record of what computed (`histill.software.record`)."""
        return self._read(self.results / FOLDER / f"{digest}.json")

    def folds(self) -> dict[str, Any]:
        """How many folds and repeats there are and where they come from; empty before the cohort stage."""
        told = {"n": 0, "repeats": 1, "source": "from an unknown source"}  # earlier versions wrote less
        folds = self._read(self.results / "cohort" / "folds.json")
        return {key: folds.get(key, told[key]) for key in told} if folds else {}

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise HistillError(f"{path} is not valid JSON: {error}", mend="delete it and run snakemake again") from None
        return found if isinstance(found, dict) else None

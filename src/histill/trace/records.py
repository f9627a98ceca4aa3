"""What a results folder says of itself: its config, and the receipts of its stages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from histill.batches import collect
from histill.config import written
from histill.errors import HistillError
from histill.methods.train import run_folder
from histill.provenance import Receipt, read_json
from histill.software import FOLDER

RUN = re.compile(r"fold(\d+)-seed(\d+)")
_AGAIN = "delete it and run snakemake again"


# What a trace reads of receipts; one that was edited by hand may hold anything.
_KINDS = {
    **dict.fromkeys(("recipe", "state", "key", "features", "repository", "revision"), (str, type(None))),
    **dict.fromkeys(("inputs", "outputs", "tables"), dict),
    "software": (str, type(None)),
    "files": list,
}


def results_of(path: Path) -> tuple[Path, Path]:
    """The results folder that a path lies in, and the path below it.

    A folder of the results may be a link to another disk, and a path may be a link to a result: what is named is looked
    for as it is written first, then where it leads.

    Raises
    ------
    HistillError
        If there is no such path, or no folder above it holds a run.
    """
    if not path.exists():
        raise HistillError(f"{path} does not exist", mend="name a file or folder of a run's results")
    for place in (Path(os.path.abspath(path)), path.resolve()):
        for folder in (place, *place.parents):
            if (folder / "config.json").is_file() and (folder / "receipts").is_dir():
                return folder, place.relative_to(folder)
    raise HistillError(
        f"{path} is not part of a run: no folder above it has config.json and receipts/",
        mend="name a file or folder below the results folder of a run (config key 'results')",
    )


class Records:
    """Receipts below a results folder; absent ones are None, so that a trace says what is missing."""

    def __init__(self, results: Path):
        self.results = results
        self.config = written(results / "config.json")
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
        return self._receipt(self.results / "receipts" / f"{name}.json")

    def slides(self, stage: str) -> dict[str, Receipt]:
        """Receipts of a slide stage by slide: of the whole stage, or of the batches that are done."""
        if stage not in self._slides:
            whole = self.results / "receipts" / f"{stage}.json"
            paths = [whole] if whole.exists() else sorted((self.results / "receipts" / stage).glob("*.json"))
            self._slides[stage] = {receipt.slide: receipt for receipt in collect(paths)}
        return self._slides[stage]

    def run(self, task: str, folder: str, stage: str, fold: int, seed: int) -> dict[str, Any] | None:
        """Receipt of a training run."""
        path = run_folder(self.results, task, folder, stage, fold, seed) / "receipt.json"
        return self._receipt(path, "inputs", "outputs")

    def predictions(self, task: str, folder: str, stage: str, fold: int, seed: int) -> dict[str, Any] | None:
        """What a run predicted: `key` and `outputs`."""
        path = run_folder(self.results, task, folder, stage, fold, seed) / "predictions.json"
        return self._receipt(path, "key", "outputs")

    def software(self, digest: str) -> dict[str, Any] | None:
        """The record of what computed (`histill.software.record`)."""
        return self._read(self.results / FOLDER / f"{digest}.json")

    def folds(self) -> dict[str, Any]:
        """How many folds and repeats there are and where they come from; empty before the cohort stage."""
        told = {"n": 0, "repeats": 1, "source": "from an unknown source"}  # earlier versions wrote less
        path = self.results / "cohort" / "folds.json"
        folds = self._read(path)
        found = {key: folds.get(key, told[key]) for key in told} if folds else {}
        if wrong := [key for key, value in found.items() if type(value) is not type(told[key])]:
            raise HistillError(f"{path}: '{wrong[0]}' is {found[wrong[0]]!r}", mend=_AGAIN)
        return found

    def _receipt(self, path: Path, *needed: str) -> dict[str, Any] | None:
        found = self._read(path)
        if found is None:
            return None
        wrong = [key for key in needed if key not in found]
        wrong += [key for key, kind in _KINDS.items() if key in found and not isinstance(found[key], kind)]
        wrong += [key for key in ("files",) if not all(isinstance(one, dict) for one in found.get(key) or ())]
        if wrong:
            raise HistillError(f"{path} is no receipt: '{wrong[0]}' is missing or of another type", mend=_AGAIN)
        return found

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        """A mapping of JSON; None where there is no such file."""
        if not path.is_file():
            return None
        found = read_json(path)
        if not isinstance(found, dict):
            raise HistillError(f"{path} holds no mapping of keys", mend=_AGAIN)
        return found

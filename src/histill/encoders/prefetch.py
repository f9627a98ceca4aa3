"""Weights before any work on slides: fetched once, checked, and written down in a receipt.

The receipt (`receipts/encoders/NAME.json`) names repository, commit and the digest of every file. Extraction reads it,
takes the files from the cache without asking anybody, and writes their digests into every store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from histill.encoders import hub, weights
from histill.encoders.recipes import EncoderRecipe
from histill.encoders.weights import WeightFiles
from histill.errors import HistillError
from histill.provenance import digest, read_json, write_json


def prefetch(
    recipe: EncoderRecipe, *, given: str | Path | None = None, out: str | Path | None = None, verify: bool = False
) -> WeightFiles:
    """Have an encoder's weights on this machine, check them, and write the receipt.

    Parameters
    ----------
    given
        File or folder of weights in place of the hub's (`features.weights`).
    out
        Receipt to write.
    verify
        Load them into the network once, so that files that do not fit are found now and not by the job that has a GPU.

    Raises
    ------
    HistillError
        When the encoder has no weights to fetch, the hub does not give them, a file came damaged, or does not fit.
    """
    if not recipe.has_weights:
        raise HistillError(f"encoder '{recipe.name}' has no weights", mend="nothing needs to be fetched for it")
    if given:
        folder, names = weights.local(recipe, given)
        found = WeightFiles(folder, {name: weights.sha256(folder / name) for name in names})
    else:
        found = _from_hub(recipe)
    if verify and recipe.builder != "plugin":
        from histill.encoders.build import network

        network(recipe, found)
    if out:
        write_json(out, _receipt(recipe, given, found))
    return found


def _from_hub(recipe: EncoderRecipe) -> WeightFiles:
    if recipe.hub is None:
        raise HistillError(
            f"encoder '{recipe.name}' lies in no public repository",
            mend=f"get its file ({weights.wanted(recipe)}) from its authors and name it in features.weights",
        )
    there = hub.cached(recipe)
    expected: dict[str, tuple[int | None, str | None]] = {}
    if there and (hub.is_pinned(recipe) or hub.is_offline()):
        commit, folder, names = there
    else:
        repository = hub.ask(recipe)
        folder, names = hub.fetch(recipe, repository)
        commit = folder.name
        expected = repository.files if commit == repository.commit else {}
    found = WeightFiles(folder, {name: weights.sha256(folder / name) for name in names}, commit)
    for name, sha256 in found.sha256.items():
        stated = expected.get(name, (None, None))[1]
        if stated and stated != sha256:
            raise HistillError(
                f"{folder / name} is damaged: its sha256 is {sha256}, the hub says {stated}",
                mend="delete the file and fetch it again",
            )
    return found


def _receipt(recipe: EncoderRecipe, given: str | Path | None, found: WeightFiles) -> dict[str, Any]:
    return {
        "stage": "encoder",
        "encoder": recipe.name,
        "recipe": digest(recipe.as_dict()),
        "licence": recipe.licence,
        "repository": None if given else recipe.hub,
        "revision": found.revision,
        "pinned": not given and hub.is_pinned(recipe),
        "weights": str(given) if given else None,
        "folder": str(found.folder.resolve()),
        "files": [
            {"name": name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "sha256": sha256}
            for name, sha256 in found.sha256.items()
            for stat in [os.stat(found.folder / name)]
        ],
    }


def for_run(recipe: EncoderRecipe, *, given: str | Path | None, receipt: str | Path) -> WeightFiles | None:
    """An encoder's weights as the receipt of this run names them, without asking the hub; None if it has none.

    Without a receipt that fits they are fetched, and the receipt is written.
    """
    if not recipe.has_weights:
        return None
    return read(recipe, given=given, receipt=receipt) or prefetch(recipe, given=given, out=receipt)


def read(recipe: EncoderRecipe, *, given: str | Path | None, receipt: str | Path) -> WeightFiles | None:
    """The weights that a receipt names; None when it is of another encoder, other weights, or a changed local file.

    Raises
    ------
    HistillError
        When files of the hub that it names are gone from the cache, or are not what they were.
    """
    if not Path(receipt).exists():
        return None
    written = read_json(receipt)
    asked = (digest(recipe.as_dict()), str(given) if given else None)
    if not isinstance(written, dict) or (written.get("recipe"), written.get("weights")) != asked:
        return None
    folder, files = Path(written["folder"]), written["files"]
    if not given:
        first = hub.cached_file(recipe, files[0]["name"], written["revision"])
        folder = first.parents[files[0]["name"].count("/")] if first else folder
    same = all(_unchanged(folder / entry["name"], entry, local=bool(given)) for entry in files)
    if not same and given:
        return None
    if not same:
        raise HistillError(
            f"the weights of encoder '{recipe.name}' that {receipt} names are no longer in the hub's cache",
            mend=f"set HF_HOME as it was, or delete {receipt} and run snakemake again",
        )
    return WeightFiles(folder, {entry["name"]: entry["sha256"] for entry in files}, written["revision"])


def _unchanged(path: Path, entry: dict[str, Any], *, local: bool) -> bool:
    """By size, and for the user's own files by time: hashing gigabytes at every job would cost minutes."""
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return stat.st_size == entry["bytes"] and (not local or stat.st_mtime_ns == entry["modified_ns"])

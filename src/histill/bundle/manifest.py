"""bundle.json, and whether a folder is the bundle that it describes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from histill.encoders.weights import sha256
from histill.errors import HistillError
from histill.provenance import digest, write_json

FORMAT = 1
MANIFEST, CARD, REFERENCE, MEMBERS = "bundle.json", "README.md", "reference.safetensors", "members"
MEMBER_FILES = ("config.json", "model.safetensors", "transforms.safetensors")
MEND = "get the bundle again (histill pull, or histill export)"
_SCHEMA = Path(__file__).with_name("bundle.schema.yaml")


def member_folder(number: int) -> str:
    return f"{MEMBERS}/{number}"


def names(members: int) -> list[str]:
    """Every file of a bundle but bundle.json itself."""
    models = (f"{member_folder(number)}/{name}" for number in range(members) for name in MEMBER_FILES)
    return [*models, REFERENCE, CARD]


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write bundle.json for the files that lie in a folder."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names(len(content["members"]))
    }
    content = {"format": FORMAT, **content, "files": files}
    write_json(folder / MANIFEST, content | {"digest": digest(content)})


def read(folder: Path, *, strict: bool) -> dict[str, Any]:
    """The content of bundle.json, after every file was held against it.

    The digests find damage and mixed versions. They are no signature: whoever can write the folder can write them too.

    Parameters
    ----------
    strict
        Refuse files that are no part of a bundle; False: never look at them.

    Raises
    ------
    HistillError
        Naming the first file that is missing, changed, unknown, or a link that leaves the folder.
    """
    if not (folder / MANIFEST).is_file():
        raise HistillError(f"{folder} is no bundle: it has no {MANIFEST}", mend="name a folder of histill export")
    present = _present(folder)
    content = _read_json(folder / MANIFEST)
    _check_content(folder / MANIFEST, content)
    listed, wanted = content["files"].keys(), set(names(len(content["members"])))
    if listed != wanted:
        wrong = ", ".join(sorted(listed ^ wanted)[:3])
        raise HistillError(f"{folder / MANIFEST} does not list the files of a bundle: {wrong}", mend=MEND)
    missing, unknown = sorted(wanted - present), sorted(present - wanted - {MANIFEST})
    if missing:
        raise HistillError(f"bundle {folder}: {missing[0]} is missing", mend=MEND)
    if unknown and strict:
        raise HistillError(f"bundle {folder}: {unknown[0]} is no file of it", mend="remove it, or get the bundle again")
    for name, stated in content["files"].items():
        # People edit the card; nothing is computed from it.
        if name != CARD and (
            (folder / name).stat().st_size != stated["bytes"] or sha256(folder / name) != stated["sha256"]
        ):
            raise HistillError(f"bundle {folder}: {name} is not the file that was exported", mend=MEND)
    return content


def _present(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    root = folder.resolve()
    found = set()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            own = path.relative_to(folder).as_posix()
            if path.is_symlink() and (name in folders or not Path(os.path.realpath(path)).is_relative_to(root)):
                raise HistillError(
                    f"bundle {folder}: {own} is a link that leads elsewhere",
                    mend="copy the bundle with its files (cp -rL), or get it with histill pull",
                )
            if name in files:
                if not path.is_file():
                    raise HistillError(f"bundle {folder}: {own} is no plain file", mend="remove it")
                found.add(own)
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # text that is none, numbers of a thousand digits, ...
        raise HistillError(f"{path} cannot be read: {error}", mend=MEND) from None


def _check_content(path: Path, content: Any) -> None:
    import yaml
    from jsonschema import Draft202012Validator

    stated = content.get("format") if isinstance(content, dict) else None
    if isinstance(stated, int) and stated > FORMAT:
        raise HistillError(
            f"{path} is of format {stated}; this version of histill reads format {FORMAT}", mend="update histill"
        )
    form = yaml.safe_load(_SCHEMA.read_text(encoding="utf-8"))
    problem = next(Draft202012Validator(form).iter_errors(content), None)
    if problem is not None:
        where = ".".join(map(str, problem.absolute_path)) or "the whole"
        raise HistillError(f"{path} is no description of a bundle: {where}: {problem.message[:200]}", mend=MEND)
    if content["digest"] != _digest({key: value for key, value in content.items() if key != "digest"}):
        raise HistillError(f"{path} was changed after it was written", mend=MEND)


def _digest(content: dict[str, Any]) -> str | None:
    try:
        return digest(content)
    except ValueError:  # a number that is not finite, which is never written
        return None

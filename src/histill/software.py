"""What computes: versions of histill, Python and the packages it stands on, and the commit of its code.

Every receipt names this record by its digest (`sign`); the record itself lies once in `receipts/software/<digest>.json`
below the results. It is in no recipe: another version alone makes nothing again.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from histill import __version__
from histill.provenance import digest, file_digest, write_json

# Packages whose version can change a result.
PACKAGES = (
    "snakemake", "openslide-python", "openslide-bin", "tiffslide", "opencv-python-headless", "shapely", "zarr",
    "anndata", "numpy", "pandas", "pyarrow", "torch", "timm", "lightning", "scikit-learn", "scikit-survival",
    "matplotlib",
)  # fmt: skip
FOLDER = "receipts/software"
COMMIT = "HISTILL_COMMIT"  # environment variable of an image that was built without the repository
_PACKAGE = Path(__file__).parent
_GIT_SECONDS = 10


def versions() -> list[tuple[str, str]]:
    """Versions of histill, Python and the packages in use; packages that are not installed are absent."""
    from importlib import metadata

    found = [("histill", __version__), ("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def source_digest() -> str:
    """Digest of histill's own files: two installations with the same one compute alike, from a wheel or a checkout."""
    files = {}
    # In a checkout resources and schemas are links to folders, which Path.rglob does not enter.
    for folder, inner, names in os.walk(_PACKAGE, followlinks=True):
        inner[:] = [name for name in inner if name != "__pycache__"]
        for name in names:
            if not name.endswith((".pyc", ".part")):
                path = Path(folder, name)
                files[path.relative_to(_PACKAGE).as_posix()] = file_digest(path)
    return digest(files)


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """Commit of the code, and whether files of it were changed since; None where that is not known.

    Of a git checkout that tracks the package; else of an installation by pip from a repository; else of the environment
    variable `HISTILL_COMMIT`, which container images set.
    """
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    head = _git("rev-parse", "--verify", "HEAD") if tracked else None
    if head:
        changes = _git("status", "--porcelain", "--", ".", ":/resources", ":/workflow", ":/Snakefile")
        return head, None if changes is None else bool(changes)
    return _installed_commit() or os.environ.get(COMMIT) or None, None


def _git(*arguments: str) -> str | None:
    """What git says of the package's folder; None where it has nothing to say."""
    command = ["git", "--no-optional-locks", "-C", str(_PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed_commit() -> str | None:
    """The commit that pip or uv installed from (PEP 610)."""
    from importlib import metadata

    try:
        told = metadata.distribution("histill").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(told).get("vcs_info", {}).get("commit_id") if told else None


@functools.cache
def record() -> dict[str, Any]:
    """Everything of this process that receipts refer to: no host, no user, no path.

    Returns
    -------
    `histill`, `commit`, `modified` (files of the commit were changed), `source` (`source_digest`), `python`,
    `platform`, `packages` (name -> version).
    """
    (_, own), (_, python), *packages = versions()
    head, modified = commit()
    return {
        "histill": own,
        "commit": head,
        "modified": modified,
        "source": source_digest(),
        "python": python,
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": dict(packages),
    }


def mark(results: str | Path) -> str:
    """Digest of `record`, which is written below the results folder if it does not lie there yet."""
    made = digest(record())
    path = Path(results) / FOLDER / f"{made}.json"
    if not path.exists():
        write_json(path, record())
    return made


def sign(results: str | Path, receipt: dict[str, Any]) -> dict[str, Any]:
    """A receipt that says what software it was made with."""
    return {**receipt, "software": mark(results)}

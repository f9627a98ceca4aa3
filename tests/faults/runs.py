"""A copy of the project with a cohort of few small slides, its runs, and what they come to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from histill.provenance import bytes_digest, digest, file_digest, read_json

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "results": "results",
    "batch_size": 8,
    "demo": {"patients": 14, "size_px": 1024},
    "tasks": {"diagnosis": {"type": "classification", "label": "diagnosis"}},
    "folds": {"n": 2},
    "training": {"device": "cpu", "model": {"epochs": 2}},
    "methods": {"run": ["disentangled", "linear-both"]},
    "evaluation": {"bootstrap": 100},
}
TARGETS = ("all", "bundle")
# How long something took, how quick it was, when it was written.
_OF_TIME = {"seconds", "tiles_per_second", "encoder_busy", "queue_depth", "modified_ns"}
_OF_TIME |= {"startTime", "endTime", "datePublished"}  # of the run, in its crate
_NOT_RESULTS = {"logs", "benchmarks", "pseudonyms.key"}  # what was said, how long it took, and a random key


class Process(NamedTuple):
    """A process of a run.

    Attributes
    ----------
    kind
        `snakemake`, `shell` (of a job), `stage`, `child` (that a stage forked), or `other`.
    stage
        Name of the stage; empty for what is none.
    """

    pid: int
    kind: str
    stage: str


@dataclass
class Place:
    """A project copy below `source`, and the folder that runs of it work in.

    Attributes
    ----------
    commands
        Begins every command line: `nice`, `setpriv`.
    """

    source: Path
    work: Path
    commands: tuple[str, ...] = ()

    @classmethod
    def make(cls, folder: Path, **changes: Any) -> Place:
        """Copy the project below `folder`; `changes` replace sections of the config."""
        place = cls(folder / "source", folder / "work")
        for name in ("src", "workflow", "resources"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place.source / name, symlinks=True, ignore=ignored)
        shutil.copy(ROOT / "Snakefile", place.source)
        place.work.mkdir()
        place.configure(**changes)
        return place

    def sibling(self, name: str) -> Place:
        """A folder beside this one, for runs of the same project and config."""
        other = Place(self.source, self.work.with_name(name), self.commands)
        other.work.mkdir(exist_ok=True)
        shutil.copy(self.work / "config.yaml", other.work)
        return other

    @property
    def results(self) -> Path:
        return self.work / "results"

    def configure(self, **changes: Any) -> None:
        (self.work / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))

    def command(self, *arguments: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "-s", str(self.source / "Snakefile")]
        # Options that take several values come before those that take one: else targets would be values.
        return [*self.commands, *snakemake, *arguments, "--configfile", "config.yaml", "--cores", "2"]

    def environment(self) -> dict[str, str]:
        scripts = Path(sys.executable).parent
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        own = {"PYTHONPATH": str(self.source / "src"), "PATH": path, "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own}

    def start(self, *arguments: str, log: Path, targets: tuple[str, ...] = TARGETS) -> subprocess.Popen:
        """Start snakemake as the leader of a session, to which all of its processes belong whoever their parent is."""
        with open(log, "w") as file:
            return subprocess.Popen(
                [*self.command(*arguments), *targets],
                cwd=self.work,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self, *arguments: str, targets: tuple[str, ...] = TARGETS, check: bool = True
    ) -> subprocess.CompletedProcess:
        """Run snakemake to its end; both of its streams are in `stdout`."""
        done = subprocess.run(
            [*self.command(*arguments), *targets],
            cwd=self.work,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def histill(self, *arguments: str, **options: Any) -> subprocess.Popen:
        """Start a command of histill in the working folder."""
        command = [*self.commands, sys.executable, "-m", "histill", *arguments]
        return subprocess.Popen(command, cwd=self.work, env=self.environment(), text=True, **options)


def processes(session: int) -> list[Process]:
    """Living processes of a session that `Place.start` began."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if int(own) == session and state not in "ZX":
            found[int(entry.name)] = (int(parent), words)
    return [_named(pid, parent, words, found) for pid, (parent, words) in found.items()]


def _named(pid: int, parent: int, words: list[str], found: dict[int, tuple[int, list[str]]]) -> Process:
    text = " ".join(words)
    called = re.search(r"\bhistill (?:collect )?([a-z-]+)", text)
    if called is None:
        return Process(pid, "snakemake" if "snakemake" in text else "other", "")
    stage = called[1]
    if words[0].endswith("sh"):
        return Process(pid, "shell", stage)
    of_stage = parent in found and found[parent][1] == words
    return Process(pid, "child" if of_stage else "stage", stage)


def kill(pid: int) -> bool:
    """SIGKILL; whether the process was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def outcome(results: Path) -> dict[str, str]:
    """Path -> digest of all that a run came to: every file that is neither log, key nor leftover, without times."""
    return {
        name: _content(results, name)
        for name in sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
        if not _NOT_RESULTS & set(Path(name).parts) and not _is_leftover(name)
    }


def leftovers(results: Path) -> list[str]:
    """Temporary files that processes left when they were killed; whoever reads results passes them by."""
    names = sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    return [name for name in names if _is_leftover(name)]


def _is_leftover(name: str) -> bool:
    return any(re.search(r"^\..*\.(part|old)\b|^\.work-", part) for part in Path(name).parts)


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, added or another one."""
    missing = [f"missing: {name}" for name in wanted.keys() - found.keys()]
    added = [f"added: {name}" for name in found.keys() - wanted.keys()]
    return sorted([*missing, *added, *(f"differs: {k}" for k in wanted.keys() & found.keys() if wanted[k] != found[k])])


def _content(results: Path, name: str) -> str:
    """Digest of a file without what it says of time."""
    path = results / name
    content = path.read_bytes()
    if path.name == "report.html":
        content = re.sub(rb'<section id="throughput".*?</section>', b"", content, flags=re.DOTALL)
    if path.name == "README.md":  # a bundle's card
        content = re.sub(rb"took .+? in all", b"", content)
    if path.suffix not in (".json", ".geojson"):
        return bytes_digest(content)
    value = _timeless(read_json(path))
    if name == "receipts/report.json":
        for kind in ("inputs", "outputs"):
            value[kind] = {of: _judged(results / of, made, file_digest) for of, made in value[kind].items()}
    if name == "ro-crate-metadata.json":
        value["@graph"] = [_judged_entity(results, entity) for entity in value["@graph"]]
    if path.name == "bundle.json":
        del value["digest"], value["files"]["README.md"]
    return digest(value)


def _judged(path: Path, made: str, read: Callable[[Path], str]) -> str:
    """In place of the digest of a file that may speak of time: whether it is that file's."""
    return "true" if read(path) == made else f"not that of {path.name}: {made}"


def _judged_entity(results: Path, entity: dict[str, Any]) -> dict[str, Any]:
    if "sha256" not in entity or not (results / entity["@id"]).is_file():
        return entity
    judged = _judged(results / entity["@id"], entity["sha256"], lambda path: sha256(path.read_bytes()).hexdigest())
    return {**entity, "sha256": judged, "contentSize": None}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _OF_TIME}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def set_aside(results: Path) -> dict[str, str]:
    """Slide -> reason, of all slides that are quarantined."""
    slides = read_json(results / "receipts" / "features.json")["slides"]
    return {slide["slide"]: slide["reason"] for slide in slides if slide["state"] == "quarantined"}

"""Kill processes of a run at random moments, resume it as the README says, and compare what it comes to.

    python -m tests.faults.kills --kills 100 --seed 0 --folder /tmp/kills

A small cohort is run once undisturbed. A second run is killed, again and again: snakemake, the shell of a job, a stage,
a child that a stage forked, or all at once. When it has come to its end all the same, its results are compared with
the undisturbed ones, those of a random stage are removed, and it begins again. What goes on behind a killed snakemake
or shell is left alone, so that resumed runs meet it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.runs import TARGETS, Place, Process, differences, kill, leftovers, outcome, processes, set_aside

ALL = "everything"
LOG = "snakemake.log"
RESUMED = ("--rerun-incomplete", "--keep-going", "--retries", "3")
_MOST_WAIT = 5.0  # seconds from the start of a stage, or from the last kill, to the next one
_AGAIN = 0.6  # how likely a stage is hit, for every time that it was hit already
_PATIENCE = 900.0  # seconds a run may take
_KILLED_CHILD = "killed (SIGKILL)"
# Stage -> the files that snakemake knows of it, and what else it made; in the order of their work.
STAGES = {
    "demo": (["demo"], []),
    "inspect": (["receipts/inspect*"], ["slides/*/receipts/inspect.json", "slides/*/slide.json"]),
    "tissue": (["receipts/tissue*"], ["slides/*/receipts/tissue.json", "slides/*/tissue.geojson"]),
    "tiles": (["receipts/tiles*"], ["slides/*/receipts/tiles.json", "slides/*/tiles.parquet"]),
    "features": (["receipts/features*"], ["slides/*/receipts/features.json", "features"]),
    "transcriptome": (["receipts/transcriptome.json"], ["transcriptome"]),
    "cohort": (["receipts/cohort.json"], ["cohort"]),
    "audit": (["receipts/audit.json"], ["cohort/audit.json"]),
    "train": (["receipts/train"], ["models"]),
    "predict-stage": (["receipts/predict*"], ["models/*/*/*/*/predictions.*"]),
    "evaluate": (["evaluation"], []),
    "report": (["report.html", "figures"], []),
    "manifest": (["ro-crate-metadata.json", "workflow"], []),
    "export": (["bundles"], []),
}


@dataclass
class Tally:
    """What has happened so far.

    Attributes
    ----------
    hits
        (stage, kind of process) -> kills.
    since_end
        Stage -> kills since the run came to its end the last time.
    starts, ends
        How often snakemake was started, and how often it came to its end.
    refused
        Starts that failed although nothing was killed in them -> how often, by the reason.
    mended
        Slides that were set aside because their child was killed, and tried again.
    unequal
        What differed from the undisturbed run when the disturbed one had ended.
    """

    hits: Counter = field(default_factory=Counter)
    since_end: Counter = field(default_factory=Counter)
    starts: int = 0
    ends: int = 0
    refused: Counter = field(default_factory=Counter)
    mended: int = 0
    unequal: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Tally:
        """What an earlier process noted, if there was one."""
        tally = cls()
        for line in map(json.loads, path.read_text().splitlines() if path.exists() else []):
            tally.starts = max(tally.starts, line["start"])
            if "process" in line:
                tally.hits[line["stage"], line["process"]] += 1
            else:
                tally.ends += 1
                tally.mended = line["mended"]
                tally.unequal += line["unequal"]
        return tally

    def kills(self) -> int:
        return sum(self.hits.values())

    def add(self, victim: Process) -> dict[str, Any]:
        """Count a kill; what to note of it."""
        self.hits[victim.stage, victim.kind] += 1
        self.since_end[victim.stage] += 1
        return {"kill": self.kills(), "stage": victim.stage, "process": victim.kind, "start": self.starts}

    def end(self, unequal: list[str]) -> dict[str, Any]:
        """Count an end of the run, and what was unequal then; what to note of it."""
        self.ends += 1
        self.since_end.clear()
        self.unequal += unequal
        return {"end": self.ends, "start": self.starts, "mended": self.mended, "unequal": unequal}

    def of_stage(self, stage: str) -> int:
        return sum(number for (name, _), number in self.hits.items() if name == stage)

    def table(self) -> str:
        """Kills by stage and kind of process, as a Markdown table."""
        kinds = sorted({kind for _, kind in self.hits})
        names = [name for name in ("", "collect", *STAGES) if self.of_stage(name)]
        lines = [f"| killed in | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
        lines += [f"| {n or 'planning'} | {' | '.join(str(self.hits[n, kind]) for kind in kinds)} |" for n in names]
        return "\n".join(lines)


def main() -> int:
    """Run from the command line; 0 where all results were equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="absent, or that of an earlier call")
    options = parser.parse_args()
    tally = torment(options.folder, options.kills, options.seed)
    print(tally.table())
    print(
        f"{tally.kills()} kills in {tally.starts} starts; {tally.ends} times at the end; {tally.mended} slides tried "
        f"again; refused: {dict(tally.refused) or 'never'}; unequal: {tally.unequal or 'nothing'}"
    )
    return 1 if tally.unequal else 0


def torment(folder: Path, kills: int, seed: int, log=print) -> Tally:
    """Kill until there were so many kills and the run is at its end; what was begun in the folder is gone on with.

    Raises
    ------
    AssertionError
        If a run makes no progress though nothing is killed.
    """
    told = folder / "kills.jsonl"
    quiet = undisturbed(folder)
    wanted, aside = outcome(quiet.results), set_aside(quiet.results)
    rng, tally = random.Random(seed), Tally.read(told)
    place = quiet.sibling("disturbed")
    sessions: list[int] = []
    forced: tuple[str, ...] = ()
    in_vain = 0
    while True:
        before = tally.kills()
        number = _start(place, forced, sessions, tally, rng, told, max(0, kills - before))
        if number != 0:
            in_vain = in_vain + 1 if tally.kills() == before else 0
            if in_vain:
                tally.refused[reason(place.work / LOG)] += 1
            assert in_vain < 6, (place.work / LOG).read_text()[-4000:]
            if in_vain:
                time.sleep(5)
            continue
        in_vain, forced = 0, ()
        _await(sessions)
        more = {slide: why for slide, why in set_aside(place.results).items() if slide not in aside}
        if more:  # as their mend says
            assert all(_KILLED_CHILD in why for why in more.values()), more
            tally.mended += len(more)
            stages = {re.search(r"stage (\w+)", why)[1] for why in more.values()}
            forced = ("-R", *(f"{stage}_batch" for stage in sorted(stages)))
            continue
        unequal = differences(wanted, outcome(place.results))
        _note(told, tally.end(unequal))
        log(f"{tally.kills()} kills: at the end; unequal: {unequal or 'nothing'}; left: {leftovers(place.results)}")
        if tally.kills() >= kills:
            return tally
        _remove(place, tally, rng, log)


def undisturbed(folder: Path) -> Place:
    """The undisturbed run in a folder, made where there is none."""
    place = Place(folder / "source", folder / "undisturbed")
    if not (place.results / "bundles").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place = Place.make(folder)
        shutil.move(place.work, folder / "undisturbed")
        place.work = folder / "undisturbed"
        place.run()
    return place


def _start(
    place: Place, forced: tuple[str, ...], sessions: list[int], tally: Tally, rng: random.Random, told: Path, most: int
) -> int:
    """Start or resume the run and kill in it, `most` times at most; its exit status."""
    if any(place.work.glob(".snakemake/locks/*")):
        place.run("--unlock", targets=())
    tally.starts += 1
    main = place.start(*RESUMED, *forced, log=place.work / LOG, targets=TARGETS)
    sessions.append(main.pid)
    begun, killed = time.monotonic(), 0
    planning = rng.random() < 0.08  # most kills shall hit a stage
    moment = begun + rng.uniform(0, 15) if planning else None
    while main.poll() is None:
        time.sleep(0.05)
        assert time.monotonic() - begun < _PATIENCE, "the run hangs"
        if killed == most:
            continue
        there = processes(main.pid)
        if moment is None and any(process.kind == "stage" for process in there):
            moment = time.monotonic() + rng.uniform(0, _MOST_WAIT)
        if moment is None or time.monotonic() < moment:
            continue
        victim = _victim(there, main.pid, tally, rng)
        moment = time.monotonic() + rng.uniform(0, _MOST_WAIT)
        # Else no stage that takes long would ever end.
        if rng.random() > _AGAIN ** tally.since_end[victim.stage] or not _strike(victim, there):
            continue
        killed += 1
        _note(told, {**tally.add(victim), "after": round(time.monotonic() - begun, 2)})
    return main.returncode


def _victim(there: list[Process], main: int, tally: Tally, rng: random.Random) -> Process:
    """A random process; stages and kinds that were seldom hit are likelier."""
    stages = sorted({process.stage for process in there if process.kind == "stage"})
    at_work = min(stages, key=tally.of_stage, default="")
    # snakemake, and all at once, are hit while some stage is at work.
    choices = [process for process in there if process.kind in ("shell", "stage", "child")]
    choices += [Process(main, kind, at_work) for kind in ("snakemake", ALL)]
    # Behind a killed snakemake all must be planned anew, which takes longer than most stages.
    weights = [
        (0.15 if one.pid == main else 1.0)
        / (1 + tally.hits[one.stage, one.kind]) ** 2
        / (1 + tally.of_stage(one.stage))
        for one in choices
    ]
    return rng.choices(choices, weights)[0]


def _strike(victim: Process, there: list[Process]) -> bool:
    if victim.kind != ALL:
        return kill(victim.pid)
    return sum(kill(process.pid) for process in there) > 0


def _remove(place: Place, tally: Tally, rng: random.Random, log) -> None:
    """Remove all results of the stage that was hit least, and the receipts of those behind it; or everything."""
    fewest = min(tally.of_stage(stage) for stage in STAGES)
    stage = rng.choice([stage for stage in STAGES if tally.of_stage(stage) == fewest])
    names = list(STAGES)
    behind = [pattern for name in names[names.index(stage) :] for pattern in STAGES[name][0]]
    patterns = ["*"] if rng.random() < 0.1 else [*STAGES[stage][1], *behind]
    log(f"  begins again {'from nothing' if patterns == ['*'] else f'at {stage}'}")
    for pattern in patterns:
        for path in place.results.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _note(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _await(sessions: list[int]) -> None:
    """Wait for what goes on behind runs that were killed."""
    deadline = time.monotonic() + _PATIENCE
    while sessions and time.monotonic() < deadline:
        sessions[:] = [session for session in sessions if processes(session)]
        time.sleep(0.2)
    assert not sessions, "a process outlived its run"


def reason(log: Path) -> str:
    """Why a run stopped, as its log says."""
    text = log.read_text(errors="replace")
    said = re.search(r"^(?:histill: |\w*(?:Error|Exception)\b).*", text, re.MULTILINE)
    return said[0][:160] if said else "unknown"


if __name__ == "__main__":
    sys.exit(main())

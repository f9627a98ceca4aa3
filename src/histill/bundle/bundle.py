"""A bundle in memory: its members, what they read, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.bundle import manifest
from histill.bundle.recipe import differences
from histill.bundle.reference import Reference
from histill.bundle.soundness import check_arrays, check_reference, understood
from histill.cohort.folds import OUTSIDE
from histill.cohort.tasks import Task
from histill.config import complete
from histill.data.bags import BagReader
from histill.data.fold import Cohort
from histill.errors import HistillError
from histill.features.store import group_names, read_recipe
from histill.methods.checkpoint import Checkpoint
from histill.methods.predict import SURVIVAL, predict
from histill.stages import READS

SECTIONS = ("slides", "tissue", "tiles", "features")  # of the config, that a bundle holds
# Keys of them that name files of one machine: no bundle tells another which of its files to open.
LOCAL = {"tissue": {"weights": None}, "features": {"weights": None, "also": {}, "table": None}}
_COLUMNS = ("risk", "p:", SURVIVAL)  # of a table of predictions, how those with outputs begin


@dataclass(frozen=True)
class Bundle:
    """An ensemble of models that need a slide alone, and all that it takes to use them.

    Attributes
    ----------
    folder
        Where it was read from.
    task
        What is predicted. Of survival, `task.columns[0]` names the column of times, and so their unit.
    kind
        Of model (`histill.stages.ModelStage`).
    classes
        Class names; empty for survival.
    members
        The models of all folds and seeds.
    recipe
        How features must be made: `uns['recipe']` of the stores, without names of local files.
    levels
        Magnification -> number F of features.
    options
        Sections `slides`, `tissue`, `tiles` and `features` of the config the members were trained under, complete.
    times
        At which survival is told [T], in units of the column of times.
    reference
        What predictions are held against.
    about
        The whole of bundle.json.
    """

    folder: Path
    task: Task
    kind: str
    classes: list[str]
    members: list[Checkpoint]
    recipe: dict[str, Any]
    levels: dict[str, int]
    options: dict[str, Any]
    times: np.ndarray
    reference: Reference
    about: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path, strict: bool = True) -> Bundle:
        """Read and check a bundle: arrays come from safetensors, all else from JSON, and nothing is unpickled.

        Parameters
        ----------
        strict
            Refuse files that are no part of a bundle; False: never look at them. Files that are part of it must be
            unchanged either way, but for the card.

        Raises
        ------
        HistillError
            Naming the file that is missing, changed or unknown, or that cannot be what it says it is, and where a
            member does not fit the others.
        """
        from safetensors.numpy import load_file

        folder = Path(folder)
        about = manifest.read(folder, strict=strict)
        if READS.get(about["kind"]) != ("slide",):
            raise HistillError(
                f"bundle {folder}: this version of histill knows no model '{about['kind']}' that reads slides alone",
                mend=f"use a version of histill like the one that wrote it ({about['histill']}), or a later one",
            )
        numbers = range(len(about["members"]))
        members = [_read_member(folder / manifest.member_folder(number), about) for number in numbers]
        with understood(f"bundle {folder}: {manifest.REFERENCE}"):
            reference = Reference.from_state(load_file(folder / manifest.REFERENCE))
            check_reference(reference, about)
        return cls(
            folder,
            members[0].labels.task,
            about["kind"],
            about["task"]["classes"],
            members,
            about["recipe"],
            about["levels"],
            _complete(about["options"]),
            np.array(about["times"], dtype=np.float64),
            reference,
            about,
        )

    def check_recipe(self, recipe: dict[str, Any]) -> None:
        """Refuse features of another recipe (`uns['recipe']` of a store) than the members were trained on.

        Raises
        ------
        HistillError
            With every key that differs.
        """
        if found := differences(self.recipe, recipe):
            raise HistillError(
                "the bundle and the features it is given are of different recipes (bundle and features): "
                + "; ".join(found),
                mend="extract the slide with the bundle's own recipe: histill predict BUNDLE SLIDE",
            )

    def check_bags(self, bags: BagReader) -> None:
        """Refuse bags that the members cannot read: of another recipe or width, or without any valid tile."""
        for slide in dict.fromkeys(slide for ids in bags.slides.values() for slide in ids):
            store = bags.folder / f"{slide}.zarr"
            for level in group_names(store):
                self.check_recipe(read_recipe(store, level))
        other = {level: width for level, width in bags.features.items() if self.levels.get(level, width) != width}
        if other:
            raise HistillError(
                f"features are of widths {other}; the bundle reads {self.levels}",
                mend="extract the slide with the bundle's own recipe: histill predict BUNDLE SLIDE",
            )
        own = bags.at(self.levels)
        for bag in bags.slides:
            if not own.has_tiles(bag):
                raise HistillError(
                    f"'{bag}' has no valid tile at {' or '.join(self.levels)}, so nothing can be said of it",
                    mend="look at the slide with: histill doctor <slide>",
                )

    def cohort(self, bags: BagReader) -> Cohort:
        """Bags as patients whose outcome is not known: what the functions of `histill.methods.predict` read."""
        task, count = self.task.name, len(bags.slides)
        unknown = (f"label:{task}", f"time:{task}", f"event:{task}")
        patients = {
            "patient_id": list(bags.slides),
            "slides": list(bags.slides.values()),
            "has_slide": [True] * count,
            "has_rna": [False] * count,
            **{column: [None] * count for column in unknown},
        }
        # No training case has a code under this key, so every case of a buffer may lend.
        folds = {"n": 1, "repeats": 1, "assignment": {name: [OUTSIDE] for name in bags.slides}}
        return Cohort(patients, folds, bags.at(self.levels), secret=b"bundle")

    def predict(self, bags: BagReader, *, device: str = "auto") -> dict[str, Any]:
        """What the members say of bags of slides, all together and one by one.

        Parameters
        ----------
        bags
            Reader of I bags; each is predicted from all slides it holds, like a patient of the cohort.

        Returns
        -------
        dict
            `names` [I] of the bags, `members`, their mean as `risk` or `p`, `spread` (standard deviation over the
            members), `calibrated`, and `percentile` among out-of-fold outputs of the cohort. Of classes `members` are
            probabilities [M, I, C], and the others [I, C]. Of survival `members` are risks [M, I], each in standard
            deviations of the member's own training patients from their median, since risks of different models have no
            common scale; `s` is the mean of the members' survival [I, T] at `times` [T], and `calibrated` that by the
            baseline of the cohort.

        Raises
        ------
        HistillError
            See `check_bags`; and where what a member says is no number.
        """
        self.check_bags(bags)
        cohort, names = self.cohort(bags), list(bags.slides)
        tables = [self._table(member, cohort, names, device) for member in self.members]
        if self.task.type == "classification":
            members = np.stack([np.stack([table[f"p:{name}"] for name in self.classes], axis=-1) for table in tables])
            together = {"p": members.mean(axis=0)}
        else:
            scales = [entry["risk"] for entry in self.about["members"]]
            members = np.stack([_standardised(t["risk"], scale) for t, scale in zip(tables, scales, strict=True)])
            curves = np.stack([_survival(table, self.times) for table in tables])
            together = {"risk": members.mean(axis=0), "s": curves.mean(axis=0), "times": self.times}
        outputs = members.mean(axis=0)
        if not np.isfinite(outputs).all():
            raise HistillError(
                f"bundle {self.folder}: a member's prediction is no finite number",
                mend="look for such among the features",
            )
        return {
            "names": names,
            **together,
            "members": members,
            "spread": members.std(axis=0),
            "calibrated": self.reference.calibrate(members).mean(axis=0),
            "percentile": self.reference.percentile(outputs),
        }

    def _table(self, member: Checkpoint, cohort: Cohort, names: list[str], device: str) -> dict[str, np.ndarray]:
        """Columns of a member's predictions [I], in the order of `names`."""
        said: list[str] = []
        table = predict(member, cohort, self.task, 0, device=device, log=said.append)
        place = {name: row for row, name in enumerate(table["patient_id"])}
        if len(place) < len(names):
            raise HistillError(
                f"fold {member.provenance['fold']} of the bundle: {'; '.join(said)}",
                mend="give slides with tiles at all magnifications of the bundle",
            )
        rows = [place[name] for name in names]
        return {k: np.array(v, dtype=np.float64)[rows] for k, v in table.items() if k.startswith(_COLUMNS)}


def mean_features(bags: BagReader, bag: str) -> dict[str, np.ndarray]:
    """Magnification -> mean features [F] of a bag's tiles; without those that it has no tile of."""
    joined = np.split(bags.mean(bag), np.cumsum(list(bags.features.values()))[:-1])
    return {level: own for level, own in zip(bags.levels, joined, strict=True) if bags.count(bag, level)}


def _standardised(risk: np.ndarray, scale: dict[str, float]) -> np.ndarray:
    """As `histill.evaluation.survival_curves.risk_margin`, by figures of the training risks."""
    return (risk - scale["median"]) / scale["deviation"] if scale["deviation"] > 0 else np.zeros_like(risk)


def _survival(table: dict[str, np.ndarray], times: np.ndarray) -> np.ndarray:
    """Survival [I, T] at some times, linear between the ends of a member's intervals, which its columns are of."""
    ends = {float(name.removeprefix(SURVIVAL)): column for name, column in table.items() if name.startswith(SURVIVAL)}
    known = np.column_stack([np.ones(len(table["risk"])), *(ends[time] for time in sorted(ends))])
    return np.stack([np.interp(times, [0.0, *sorted(ends)], row) for row in known])


def _read_member(place: Path, about: dict[str, Any]) -> Checkpoint:
    with understood(str(place)):
        member = Checkpoint.read(place)
        _check_member(place, member, about)
        check_arrays(member, about["levels"])
    return member


def _check_member(place: Path, member: Checkpoint, about: dict[str, Any]) -> None:
    """Refuse a member that is of another task or kind than the bundle says, or reads what a slide does not have."""
    task = member.labels and member.labels.task
    own = task and [task.name, task.type, list(member.labels.classes)]
    stated = [about["task"][key] for key in ("name", "type", "classes")]
    widths = {level: len(scaler.mean_) for level, scaler in member.scalers.items()}
    fits = (member.kind, own) == (about["kind"], stated) and widths.items() <= about["levels"].items()
    if not fits or member.expression:
        raise HistillError(f"{place} is no member of the bundle: it is of another task or model", mend=manifest.MEND)


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    """The sections of the config, checked, with defaults of keys that are younger than the bundle."""
    config = complete({"results": "results", "cohort": {}, **options})
    return {name: config[name] | LOCAL.get(name, {}) for name in SECTIONS}

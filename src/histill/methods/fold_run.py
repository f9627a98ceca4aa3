"""One fold and seed of a training stage: its patients, their bags and targets, and how a network is fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.bags import Instances
from histill.data.expression import ExpressionTransform
from histill.data.fold import TRAIN, VALIDATION, Cohort, Labels
from histill.data.scaling import WinsorizedScaler
from histill.errors import HistillError
from histill.methods.progress import TrainingProgress
from histill.stages import STAGE_OF, ModelStage

if TYPE_CHECKING:
    from torch import Tensor

    from histill.data.module import BagDataset
    from histill.methods.distillation import Lessons
    from histill.methods.module import TrainedModule

UNFINISHED = "resume.safetensors"  # state of a run that is not done (`histill.methods.resume`)
FEWEST = 4  # training patients


@dataclass
class FoldRun:
    """What a method is given to train on, and what it trains with.

    Attributes
    ----------
    task
        None for stages without labels.
    before
        Stage of the method -> folder of its run of the same fold and seed.
    key
        What an unfinished run is known by.
    name
        Task, method, stage, fold and seed, for people.
    """

    task: Task | None
    kind: str
    fold: int
    seed: int
    cohort: Cohort
    config: dict[str, Any]
    folder: Path
    before: dict[str, Path]
    key: str
    name: str
    progress: TrainingProgress
    log: Callable[[str], None]

    @property
    def stage(self) -> ModelStage:
        return STAGE_OF[self.kind]

    @property
    def stream(self) -> int:
        """Seed of everything random in the run: a fold's result does not depend on which folds ran before it."""
        return 100_003 * self.seed + self.fold

    @property
    def device(self) -> str:
        return self.config["training"]["device"]

    @cached_property
    def training(self) -> list[str]:
        """Patients to learn from, sorted."""
        return self._usable(TRAIN)

    @cached_property
    def validation(self) -> list[str]:
        """Patients of the inner split, sorted."""
        return self._usable(VALIDATION)

    def check(self) -> None:
        """Refuse a fold with too few patients.

        Raises
        ------
        HistillError
            Which names the fold, and what the patients lack.
        """
        if len(self.training) >= FEWEST and self.validation:
            return
        lower = "lower training.hide_rna or" if self.config["training"]["hide_rna"] else "lower"
        raise HistillError(
            f"{self.name}: {len(self.training)} training and {len(self.validation)} validation patients have "
            f"{' and '.join(self.stage.learns_from)}; that is too few to train '{self.kind}'",
            mend=f"{lower} folds.n, or remove this method from methods.run",
        )

    def _usable(self, split: str) -> list[str]:
        """Patients of a split that have what is learned from; a slide without any valid tile is none."""
        wanted = {name: name in self.stage.learns_from for name in ("slide", "rna")}
        if self.task is None:
            share = self.config["training"]["validation_fraction"]
            chosen = self.cohort.select_unlabelled(self.fold, split, share=share, **wanted)
        else:
            chosen = self.cohort.select(self.task, self.fold, split, **wanted)
        return [patient for patient in chosen if not wanted["slide"] or self.cohort.bags.has_tiles(patient)]

    def labels(self) -> Labels:
        """Fitted on all training patients with a slide, whoever has RNA: a teacher and its student must mean the same.

        Without a slide to read, on the training patients.
        """
        needs_slide = "slide" in self.stage.learns_from
        patients = self.cohort.select(self.task, self.fold, TRAIN, slide=True, rna=False)
        return Labels.fit(self.task, self.cohort, patients if needs_slide else self.training)

    def bags(
        self,
        patients: list[str],
        scalers: dict[str, WinsorizedScaler],
        *,
        limit: int | None = None,
        pooled: bool = False,
        slides: str | None = None,
        labels: Labels | None = None,
        expression: ExpressionTransform | None = None,
        lessons: Lessons | None = None,
        more: dict[str, Tensor] | None = None,
    ) -> BagDataset:
        """Bags of some patients at the magnifications that are scaled, with what is learned from them.

        Parameters
        ----------
        limit
            Random subsets of at most so many tiles a magnification, for training; None: all.
        pooled
            The mean of all tiles of a magnification in their place.
        slides
            In place of `training.slides`.
        labels
            Gives the targets `label` and `event`, int64 [I].
        expression
            Gives the targets `genes:<subspace>`, float32 [I, n]; zeros for patients without RNA.
        lessons
            What a teacher says of them.
        more
            Further targets, a row a patient.
        """
        import torch

        from histill.data.module import BagDataset, MeanBagDataset

        rows = dict(more or {})
        if labels is not None:
            encoded = [labels.encode(self.cohort.label(self.task, patient)) for patient in patients]
            rows["label"], rows["event"] = torch.tensor(encoded).T
        if expression is not None:
            rows |= {f"genes:{subspace}": value for subspace, value in self._genes(patients, expression).items()}
        instances = self.instances(patients, scalers, slides)
        targets = {name: value[instances.patient] for name, value in rows.items()}
        if lessons is not None:
            targets |= lessons.targets(instances.names)
        if pooled:
            return MeanBagDataset(instances, scalers, targets)
        return BagDataset(instances, scalers, targets, max_tiles=limit, seed=self.stream)

    def instances(
        self, patients: list[str], scalers: dict[str, WinsorizedScaler], slides: str | None = None
    ) -> Instances:
        """Bags of some patients; a magnification that a fold leaves out is in none of it."""
        bags = self.cohort.bags.at({level: len(scaler.mean_) for level, scaler in scalers.items()})
        return Instances.of(bags, patients, (slides or self.config["training"]["slides"]) if scalers else "bag")

    def _genes(self, patients: list[str], expression: ExpressionTransform) -> dict[str, Tensor]:
        import torch

        full = {space: torch.zeros(len(patients), len(genes)) for space, genes in expression.genes_.items()}
        paired = [index for index, patient in enumerate(patients) if self.cohort.value(patient, "has_rna")]
        if not paired:
            return full
        genes = self.cohort.expression.transformed([patients[index] for index in paired], expression)
        for subspace, rows in genes.items():
            full[subspace][paired] = torch.from_numpy(rows)
        return full

    @property
    def max_tiles(self) -> int:
        """Of a bag and magnification, in training."""
        return self.config["training"]["model"]["max_tiles"]

    @property
    def optimiser(self) -> dict[str, float]:
        """Learning rate and weight decay of `training.model`."""
        return {name: self.config["training"]["model"][name] for name in ("learning_rate", "weight_decay")}

    def fit(
        self,
        module: TrainedModule,
        training: BagDataset,
        validation: BagDataset,
        *,
        part: str = "",
        keep: str = "best",
        strata: np.ndarray | None = None,
        **options: Any,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Train; weights and figures (`histill.methods.trainer.fit`).

        Parameters
        ----------
        part
            Name of what is trained before the stage's own network, in a folder of its own.
        strata
            Of the training bags [I]: every batch has as much of each as the whole.
        options
            In place of those of `training.model`.
        """
        from histill.data.module import BagDataModule
        from histill.methods.trainer import Run, fit

        settings = {**self.config["training"], "model": {**self.config["training"]["model"], **options}}
        size = settings["model"]["batch_size"]
        together = module.validates_together
        data = BagDataModule(training, validation, batch_size=size, seed=self.stream, strata=strata, together=together)
        state, key, name = self.folder / UNFINISHED, self.key, self.name
        if part:
            state, key, name = self.folder / part / UNFINISHED, f"{key}-{part}", f"{name}, {part}"
        run = Run(state, key, self.stream, name, shared=self.folder.parents[3])
        return fit(module, data, settings, run, keep=keep, report=self.progress.at, log=self.log)

"""Fitting a LightningModule: early stopping on the inner split, best weights kept, resumed after a kill."""

from __future__ import annotations

import logging
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from histill.data.module import BagDataModule
from histill.device import lease
from histill.errors import HistillError
from histill.methods import logs
from histill.methods.module import TrainedModule
from histill.methods.resume import RunState
from histill.provenance import write_csv

MONITOR = "validation_loss"
Report = Callable[[tuple[float, float | None]], None]


@dataclass(frozen=True)
class Run:
    """One training run: where it lies and what it follows from.

    Attributes
    ----------
    state
        File of the state while it is not done; curve.csv and logs are written beside it.
    key
        Digest of recipe and inputs: a state of another key is not gone on from.
    seed
        Every epoch's randomness follows from it and the epoch.
    name
        Task, method, stage, fold and seed, for people.
    shared
        Folder of all runs.
    """

    state: Path
    key: str
    seed: int
    name: str
    shared: Path

    @property
    def folder(self) -> Path:
        return self.state.parent


class EpochKeeper(Callback):
    """Seeds every epoch, and writes the state of the run after it.

    What is drawn in an epoch follows from the run's seed and the epoch, and not from what was drawn before, so that a
    run that goes on after a kill ends like one that was never stopped.
    """

    def __init__(self, run: Run, state: RunState, options: dict[str, Any], logs: list[str], keep: str, report: Report):
        self.run, self.state, self.options, self.logs, self.report = run, state, options, logs, report
        self.keep = keep
        self._loggers: list[Logger] = []

    def setup(self, trainer: lightning.Trainer, module: TrainedModule, stage: str) -> None:
        _quiet()  # ranks are processes of their own

    def on_train_start(self, trainer: lightning.Trainer, module: TrainedModule) -> None:
        self.state.restore(trainer)
        if trainer.is_global_zero:
            self._loggers = logs.loggers(self.logs, self.run.folder, self.run.shared, self.run.name)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: TrainedModule) -> None:
        seeds = np.random.SeedSequence([self.run.seed, trainer.current_epoch, trainer.global_rank]).generate_state(3)
        for seed, value in zip((random.seed, np.random.seed, torch.manual_seed), seeds.tolist(), strict=True):
            seed(value)
        trainer.datamodule.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: TrainedModule, outputs: Any, batch: dict, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            loss = self.state.curve[-1][MONITOR] if self.state.curve else None
            self.report((trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches, loss))

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: TrainedModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch, monitored = trainer.current_epoch, figures[MONITOR]
        self.state.diverged = not (np.isfinite(monitored) and np.isfinite(figures["train_loss"]))
        self.state.add({"epoch": epoch, **figures}, monitored, module.model, keep=self.keep)
        self.state.capture(trainer)
        if trainer.is_global_zero:
            self.state.write(self.run.state)
            for logger in self._loggers:
                logger.log_metrics(figures, step=epoch)
                logger.save()
        trainer.should_stop = self.state.over(epochs=self.options["epochs"], patience=self.options["patience"])

    def teardown(self, trainer: lightning.Trainer, module: TrainedModule, stage: str) -> None:
        logs.close(self._loggers)


def fit(
    module: TrainedModule,
    data: BagDataModule,
    training: dict[str, Any],
    run: Run,
    *,
    keep: str = "best",
    report: Report,
    log=print,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train and return the best (or last) epoch's weights and what is worth recording.

    An unfinished run of the same key is gone on from after its last complete epoch, with the same result on one device.
    The file of its state is left to be removed once what is returned is stored.

    Parameters
    ----------
    training
        `training` of the config.
    keep
        `best`: the epoch of the lowest validation loss, and training stops when `patience` epochs bring no better one;
        `last`: all epochs, for losses without labels, whose minimum says little of what was learned.
    report
        Is told (epochs done, last validation loss or None) after every step.

    Raises
    ------
    HistillError
        If losses become infinite, or the devices asked for are not there or cannot share the batches.
    """
    _quiet()
    options, number = training["model"], training["devices"]
    data.check(number)
    logs.check(training["logs"])
    state = _begin(run, log)
    if not state.over(epochs=options["epochs"], patience=options["patience"]):
        with _leased(training["device"], number) as places, _told(report, number) as tell:
            keeper = EpochKeeper(run, state, options, training["logs"], keep, tell)
            _trainer(places, options, keeper).fit(module, datamodule=data)
        state = RunState.read(run.state, run.key)  # as the first rank wrote it
        if state is None:
            raise HistillError(
                f"{run.state} is gone: another process has trained this run meanwhile",
                mend="let one run at a time work in a results folder, and run snakemake again: what is done is kept",
            )
    if state.diverged:
        run.state.unlink()
        raise HistillError(
            f"training diverged in epoch {len(state.curve) - 1}: {state.curve[-1]}",
            mend="lower training.model.learning_rate",
        )
    write_csv(run.folder / "curve.csv", list(state.curve[0]), state.curve)
    weights = {name: value.numpy() for name, value in state.best.items()}
    own = state.curve[state.best_epoch][MONITOR]
    return weights, {f"{keep}_epoch": state.best_epoch, "epochs": len(state.curve), MONITOR: own}


def _begin(run: Run, log: Callable[[str], None]) -> RunState:
    run.folder.mkdir(parents=True, exist_ok=True)
    state = RunState.read(run.state, run.key)
    if state is not None:
        log(f"{run.name}: goes on after epoch {len(state.curve) - 1}")
        return state
    if run.state.exists():
        log(f"{run.name}: starts anew; {run.state} is of other settings or inputs, or cannot be read")
    logs.clear(run.folder)
    return RunState(run.key)


def _trainer(places: list[torch.device], options: dict[str, Any], keeper: EpochKeeper) -> lightning.Trainer:
    on_gpu, many = places[0].type == "cuda", len(places) > 1
    return lightning.Trainer(
        max_epochs=options["epochs"],
        accelerator="gpu" if on_gpu else "cpu",
        devices=[place.index or 0 for place in places] if on_gpu else len(places),
        # Processes are started here: a strategy that runs the command again would start the whole stage in each.
        # Not every network uses every parameter for every batch.
        strategy=DDPStrategy(start_method="spawn", find_unused_parameters=True) if many else "auto",
        precision=options["precision"],
        accumulate_grad_batches=options["accumulate"],
        gradient_clip_val=1.0,
        callbacks=[keeper],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # Not `True`: the cumulative sums of the survival likelihood have no deterministic kernel on a GPU.
        deterministic="warn",
    )


@contextmanager
def _leased(device: str, number: int) -> Iterator[list[torch.device]]:
    """Where to compute: so many GPUs, each of its own, or so many processes on the CPU."""
    with ExitStack() as stack:
        places = [stack.enter_context(lease(device)) for _ in range(number)]
        if places[0].type == "cuda" and len({place.index or 0 for place in places}) < number:
            raise HistillError(
                f"training.devices: {number}, but fewer GPUs are free for training.device: {device}",
                mend="lower training.devices, set training.device: auto, or wait for the other jobs",
            )
        yield places


@contextmanager
def _told(report: Report, number: int) -> Iterator[Report]:
    """`report`, also for ranks that are processes of their own."""
    if number == 1:
        yield report
        return
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def pass_on() -> None:
        while (told := queue.get()) is not None:
            report(told)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield queue.put
    finally:
        queue.put(None)
        thread.join()


def _quiet() -> None:
    """Lightning's advice on loader workers and its banners do not belong into the log of every fold."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*module.* in eval mode at the start.*")  # frozen parts are meant to be

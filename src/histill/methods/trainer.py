"""Fitting a LightningModule: early stopping on the inner split, best weights kept, the curve written."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback, EarlyStopping

from histill.data.module import BagDataModule
from histill.device import lease
from histill.errors import HistillError
from histill.methods.module import SupervisedModule
from histill.provenance import write_csv

MONITOR = "validation_loss"


class BestWeights(Callback):
    """Keeps the weights of the epoch with the lowest validation loss, in memory, and every epoch's figures."""

    def __init__(self):
        self.best: float = float("inf")
        self.epoch: int = -1
        self.state: dict[str, Any] = {}
        self.curve: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: SupervisedModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not np.isfinite(figures[MONITOR]) or not np.isfinite(figures["train_loss"]):
            raise HistillError(
                f"training diverged in epoch {trainer.current_epoch}: {figures}",
                mend="lower training.model.learning_rate",
            )
        self.curve.append({"epoch": trainer.current_epoch, **figures})
        if figures[MONITOR] < self.best:
            self.best, self.epoch = figures[MONITOR], trainer.current_epoch
            self.state = copy.deepcopy(module.model.state_dict())


def fit(
    module: SupervisedModule, data: BagDataModule, options: dict[str, Any], *, device: str, curve: Path
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train and return the best epoch's weights and what is worth recording.

    Parameters
    ----------
    options
        `training.model` of the config.
    curve
        Where the training curve is written (csv).
    """
    _quiet()
    best = BestWeights()
    with lease(device) as where:
        trainer = lightning.Trainer(
            max_epochs=options["epochs"],
            accelerator="gpu" if where.type == "cuda" else "cpu",
            devices=[where.index or 0] if where.type == "cuda" else 1,
            precision=options["precision"],
            gradient_clip_val=1.0,
            callbacks=[best, EarlyStopping(MONITOR, patience=options["patience"], check_finite=True)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            # Not `True`: the cumulative sums of the survival likelihood have no deterministic kernel on a GPU.
            deterministic="warn",
        )
        trainer.fit(module, data)
    write_csv(curve, list(best.curve[0]), best.curve)
    weights = {name: value.detach().cpu().numpy() for name, value in best.state.items()}
    return weights, {"best_epoch": best.epoch, "epochs": len(best.curve), MONITOR: best.best}


def _quiet() -> None:
    """Lightning's advice on loader workers and its banners do not belong into the log of every fold."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")

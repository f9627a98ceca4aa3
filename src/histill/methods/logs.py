"""Where a run's figures go beside curve.csv: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from histill.errors import HistillError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

FOLDER = "logs"
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def check(names: Sequence[str]) -> None:
    """Refuse loggers whose package is not installed.

    Raises
    ------
    HistillError
        With the line that installs it.
    """
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise HistillError(
                f"training.logs names {name}, whose package is not installed",
                mend=f"pip install {_PACKAGES[name]}, or remove it from training.logs",
            )


def clear(folder: Path) -> None:
    """Remove what an earlier run logged below `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def loggers(names: Sequence[str], folder: Path, shared: Path, run: str) -> list[Logger]:
    """Loggers of one run; none sends anything anywhere unless its own environment variable says so.

    Parameters
    ----------
    names
        `training.logs` of the config.
    folder
        Of the run: event files lie in its `logs`.
    shared
        Folder of all runs: MLflow has one database of them, `mlflow.db`.
    run
        What the run is called where several are shown together.
    """
    from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

    logs = folder / FOLDER
    made: list[Logger] = []
    for name in names:
        if name == "tensorboard":
            made.append(TensorBoardLogger(logs, name="", version=""))
        elif name == "wandb":
            logs.mkdir(parents=True, exist_ok=True)
            offline = os.environ.get("WANDB_MODE", "offline") == "offline"
            made.append(WandbLogger(name=run, save_dir=logs, project="histill", offline=offline))
        else:
            uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{(shared / 'mlflow.db').resolve()}")
            made.append(MLFlowLogger(experiment_name="histill", run_name=run, tracking_uri=uri))
    return made


def close(made: Sequence[Logger]) -> None:
    """Finish what `loggers` made: the next run of the process begins its own."""
    for logger in made:
        logger.finalize("success")
        if type(logger).__name__ == "WandbLogger":  # it leaves that to the end of the process
            logger.experiment.finish()

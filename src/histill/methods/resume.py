"""The state of a training run after each epoch, in one file: what a run that was killed goes on from.

A safetensors file; what is no tensor is JSON in its header. No pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from histill.provenance import atomic_file

_FORMAT = 1


@dataclass
class RunState:
    """What is known after some complete epochs.

    Attributes
    ----------
    key
        Digest of everything that the run follows from.
    curve
        Figures of each epoch.
    best_epoch
        Whose weights are kept: that of the lowest validation loss, or the last one; −1 before the first.
    best
        Weights of the network after that epoch.
    diverged
        Whether the last epoch's losses are not finite.
    tensors, facts
        The rest of training: module, optimiser, scheduler, gradient scaler (`capture`).
    """

    key: str
    curve: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)
    diverged: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, path: str | Path) -> None:
        """Replace the file at `path`."""
        from safetensors.torch import save_file

        tensors = {f"best/{name}": value for name, value in self.best.items()} | self.tensors
        facts = {
            "format": _FORMAT,
            "key": self.key,
            "curve": self.curve,
            "best_epoch": self.best_epoch,
            "diverged": self.diverged,
            "facts": self.facts,
        }
        with atomic_file(path) as part:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part, {"run": _text(facts)})

    @classmethod
    def read(cls, path: str | Path, key: str) -> RunState | None:
        """The state at `path`; None where there is none of this key that can be read."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["run"])
                if (facts["format"], facts["key"]) != (_FORMAT, key):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            return None
        best = {name.removeprefix("best/"): tensors.pop(name) for name in list(tensors) if name.startswith("best/")}
        own = {name: facts[name] for name in ("key", "curve", "best_epoch", "diverged", "facts")}
        return cls(best=best, tensors=tensors, **own)

    def add(self, figures: dict[str, float], monitored: float, module: torch.nn.Module, *, keep: str = "best") -> None:
        """Append an epoch; its weights are kept if nothing before was better, or (`keep="last"`) in any case."""
        if keep == "last" or self.best_epoch < 0 or monitored < min(row["validation_loss"] for row in self.curve):
            self.best_epoch = len(self.curve)
            self.best = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        self.curve.append(figures)

    def over(self, *, epochs: int, patience: int) -> bool:
        """Whether nothing is left to train."""
        waited = len(self.curve) - 1 - self.best_epoch
        return self.diverged or len(self.curve) >= epochs or (self.best_epoch >= 0 and waited >= patience)

    def capture(self, trainer: lightning.Trainer) -> None:
        """Take the state of a trainer between two epochs."""
        module, optimizer = trainer.lightning_module, trainer.optimizers[0]
        state = optimizer.state_dict()
        self.tensors = {f"module/{name}": value.detach() for name, value in _tensors(module).items()}
        for index, values in state["state"].items():
            self.tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
        self.facts = {
            "groups": state["param_groups"],
            "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "precision": trainer.precision_plugin.state_dict(),
        }

    def restore(self, trainer: lightning.Trainer) -> None:
        """Bring a trainer, whose loop is about to start, to where this state was taken."""
        if not self.curve:
            return
        with torch.no_grad():
            for name, value in _tensors(trainer.lightning_module).items():
                value.copy_(self.tensors[f"module/{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for path, value in self.tensors.items():
            kind, index, *name = path.split("/", 2)
            if kind == "optimizer":
                moments.setdefault(int(index), {})[name[0]] = value
        trainer.optimizers[0].load_state_dict({"state": moments, "param_groups": self.facts["groups"]})
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.facts["scheduler"])
        trainer.precision_plugin.load_state_dict(self.facts["precision"])
        progress = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = len(self.curve)


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module, also buffers that its checkpoints leave out."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _text(facts: dict[str, Any]) -> str:
    return json.dumps(facts, allow_nan=True)  # of a run that diverged, the last figures

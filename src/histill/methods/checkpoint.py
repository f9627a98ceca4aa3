"""Checkpoints: safetensors and JSON, no pickle."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.data.expression import ExpressionTransform
from histill.data.fold import Labels
from histill.data.scaling import WinsorizedScaler
from histill.errors import HistillError
from histill.provenance import atomic_file, read_json, write_json
from histill.stages import READS


@dataclass
class Checkpoint:
    """A trained model and everything it needs to predict.

    Attributes
    ----------
    kind
        What is trained (`histill.stages.ModelStage`).
    labels
        None for stages that learn without them.
    arguments
        Constructor arguments of the network; empty for linear models.
    weights
        Name -> array.
    """

    kind: str
    labels: Labels | None
    arguments: dict[str, Any]
    weights: dict[str, np.ndarray]
    scalers: dict[str, WinsorizedScaler]
    expression: ExpressionTransform | None
    provenance: dict[str, Any]

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write the three files; returns name -> digest."""
        from safetensors.numpy import save_file

        from histill.provenance import file_digest

        folder = Path(folder)
        transforms = {f"features.{level}.{k}": v for level, s in self.scalers.items() for k, v in s.state().items()}
        if self.expression is not None:
            transforms.update({f"expression.{name}": value for name, value in self.expression.state().items()})
        for name, arrays in (("model.safetensors", self.weights), ("transforms.safetensors", transforms)):
            with atomic_file(folder / name) as part:
                save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, part)
        config = {
            "kind": self.kind,
            "inputs": list(READS[self.kind]),
            "labels": self.labels and self.labels.meta(),
            "arguments": self.arguments,
            "levels": list(self.scalers),
            "provenance": self.provenance,
        }
        write_json(folder / "config.json", config)
        names = ("model.safetensors", "transforms.safetensors", "config.json")
        return {name: file_digest(folder / name) for name in names}

    @classmethod
    def read(cls, folder: str | Path) -> Checkpoint:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        config = read_json(folder / "config.json")
        try:
            weights = load_file(folder / "model.safetensors")
            transforms = load_file(folder / "transforms.safetensors")
        except (FileNotFoundError, SafetensorError) as error:
            raise HistillError(f"checkpoint {folder} cannot be read: {error}", mend="train it again") from None
        scalers = {
            level: WinsorizedScaler.from_state(_part(transforms, f"features.{level}.")) for level in config["levels"]
        }
        genes = _part(transforms, "expression.")
        return cls(
            config["kind"],
            config["labels"] and Labels.from_meta(config["labels"]),
            config["arguments"],
            weights,
            scalers,
            ExpressionTransform.from_state(genes) if genes else None,
            config["provenance"],
        )

    def network(self):
        """The network in evaluation mode."""
        import torch

        network = build_network(self.kind, self.arguments)
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in self.weights.items()})
        return network.eval().requires_grad_(False)


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


# Kind of model -> module below `histill.methods`, and the class in it, of its network.
_NETWORKS = {
    "meanpool": ("baselines.meanpool", "MeanPool"),
    "abmil": ("baselines.abmil", "ABMIL"),
    "transmil": ("transmil", "TransMIL"),
    "snn": ("baselines.snn", "SNN"),
    "mcat": ("baselines.mcat", "MCAT"),
    "mirror": ("mirror.model", "MIRROR"),
    "mirror-slide": ("mirror.probe", "Probe"),
    "mirror-rna": ("mirror.probe", "Probe"),
    "mirror-fused": ("mirror.probe", "Probe"),
    "mirror-student": ("mirror.student", "Student"),
    "msrl-pretrain": ("msrl.pretraining", "Pretrainer"),
    "msrl-pretrain-slide": ("msrl.pretraining", "Pretrainer"),
    "msrl": ("msrl.model", "MSRL"),
    "msrl-slide": ("msrl.model", "MSRL"),
    "msrl-both": ("msrl.model", "MSRL"),
}
_DISENTANGLED = {
    "attention": ("disentangled.model", {"teacher": "Teacher", "student": "Student"}),
    "deformable": ("disentangled.published", {"teacher": "PublishedTeacher", "student": "PublishedStudent"}),
}


def build_network(kind: str, arguments: dict[str, Any]):
    """A network by kind; only its own module is imported."""
    if kind in ("teacher", "student"):
        module, names = _DISENTANGLED[arguments["network"]]
        arguments, name = {key: value for key, value in arguments.items() if key != "network"}, names[kind]
    else:
        module, name = _NETWORKS[kind]
    return getattr(importlib.import_module(f"histill.methods.{module}"), name)(**arguments)

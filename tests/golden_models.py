"""What every model gives on a tiny fixed input (see `golden_stages`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden_stages import CLASSES, SURVIVAL, rounded, settings, waves

LINEAR = {
    "linear-slide/train": ("slide",),
    "linear-rna/train": ("rna",),
    "linear-both/train": ("slide", "rna"),
}


def linear(modalities: tuple[str, ...]) -> dict[str, Any]:
    """Ridge Cox and ridge logistic regression: the penalty chosen, and what is predicted of other patients."""
    from histill.data.fold import Labels
    from histill.methods.baselines.linear import LinearModel

    factor = waves(60, 2, 0.4)
    inputs = {
        name: factor @ waves(2, 9, phase) + 0.7 * waves(60, 9, phase + 1) for phase, name in enumerate(modalities)
    }
    months = np.exp(1 - factor.sum(axis=1) + 0.3 * waves(60, 1, 5)[:, 0])
    outcomes = [(round(float(time), 1), int(index % 4 > 0)) for index, time in enumerate(months)]
    names = [("A", "B", "C")[int(np.digitize(value, [-0.4, 0.4]))] for value in factor[:, 0]]
    new = {name: value[:6] + 0.5 * waves(6, 9, 3) for name, value in inputs.items()}
    options = {"components": 4, "alphas": [0.01, 0.1, 1.0]}
    found = {}
    for labels, targets in ((Labels(SURVIVAL), outcomes), (Labels(CLASSES, classes=["A", "B", "C"]), names)):
        model = LinearModel.fit(inputs, labels, targets, options)
        found[labels.task.type] = {"alpha": model.alpha, "predicted": rounded(model.predict(new).ravel())}
    return found


def predict(folder: Path) -> dict[str, Any]:
    """The prediction table of a linear model of transcriptomes: who is predicted, in which split."""
    from histill.data.bags import BagReader
    from histill.data.expression_table import ExpressionTable
    from histill.data.fold import Cohort, Labels, fit_expression
    from histill.methods.baselines.linear import LinearModel
    from histill.methods.baselines.training import TRANSCRIPTOME, linear_inputs
    from histill.methods.checkpoint import Checkpoint
    from histill.methods.predict import predict as run

    patients, genes = [f"P{number}" for number in range(24)], ["G1", "G2", "G3"]
    matrix = waves(24, 3)
    outcomes = [None if number == 5 else (1.0 + number, number % 2) for number in range(24)]
    columns = {
        "patient_id": patients,
        "has_slide": [False] * 24,
        "has_rna": [number != 2 for number in range(24)],
        "fold": [-1 if number == 9 else number % 3 for number in range(24)],
        "time:os": [outcome and outcome[0] for outcome in outcomes],
        "event:os": [outcome and outcome[1] for outcome in outcomes],
    }
    assignment = {patient: [fold] for patient, fold in zip(patients, columns["fold"], strict=True)}
    folds = {"n": 3, "repeats": 1, "assignment": assignment, "validation": {"os": {"1": ["P3", "P6"]}}}
    cohort = Cohort(columns, folds, BagReader(folder, {}), ExpressionTable(patients, matrix, genes))
    training = [number for number in range(24) if number % 3 != 1 and outcomes[number] and number != 9]
    labels = Labels(SURVIVAL, edges=np.array([8.5, 16.0]))
    options = {"components": 3, "alphas": [0.1]}
    names = [patients[number] for number in training if number != 2]
    expression = fit_expression(cohort, names, {TRANSCRIPTOME: {TRANSCRIPTOME: genes}}, settings())
    inputs = linear_inputs(cohort, names, ("rna",), expression)
    model = LinearModel.fit(inputs, labels, [cohort.label(SURVIVAL, name) for name in names], options)
    checkpoint = Checkpoint("linear-rna", labels, {}, model.state(), {}, expression, {})
    table = run(checkpoint, cohort, SURVIVAL, 1, device="cpu")
    return {**table, "risk": rounded(table["risk"])}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors of a network's output by their keys, joined."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}:{key}" if name else key)
    else:
        yield name, value


def networks() -> dict[str, dict[str, Any]]:
    """Outputs and losses of the networks on fixed weights and a fixed batch of three patients, one with no 10x tile.

    What Lightning does around them is left out: importing it takes longer than all of this.
    """
    import torch

    from histill.methods.checkpoint import build_network
    from histill.methods.disentangled.losses import orthogonality
    from histill.methods.distillation import distil_features, distil_logits
    from histill.methods.outputs import fuse, risk, survival_loss

    def tensor(rows: int, columns: int, phase: float) -> torch.Tensor:
        return torch.from_numpy(waves(rows, columns, phase)).float()

    levels, subspaces = {"10x": 5, "20x": 6}, {"tumor": 4, "microenvironment": 3}
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    batch = {
        "tokens": {level: tensor(12, width, width).reshape(3, 4, width) for level, width in levels.items()},
        "mask": {"10x": mask, "20x": mask.roll(1, 0) | mask},
        "cells": {level: torch.arange(36).reshape(3, 4, 3) % 5 for level in levels},
        "genes": {name: tensor(3, width, width) for name, width in (subspaces | {"genes": 5}).items()},
    }
    present = {level: own.any(dim=-1) for level, own in batch["mask"].items()} | {"rna": torch.tensor([True] * 3)}
    interval, event = torch.tensor([0, 2, 1]), torch.tensor([1, 0, 1])
    shared = {"features": levels, "outputs": 3, "dim": 8, "dropout": 0.25}
    genes = {"outputs": 3, "dim": 8, "layers": 2, "dropout": 0.25}
    members = {"tumor": {"a": [0, 1], "b": [1, 2, 3]}, "microenvironment": {"c": [0, 2]}}
    design = {"network": "attention", "context": 2}
    own = {
        "teacher": {**shared, **design, "heads": 2, "genes": subspaces, "members": members},
        "student": {**shared, **design, "subspaces": list(subspaces), "tokens": 2},
        "meanpool": {"features": levels, "outputs": 3, "hidden": 8, "dropout": 0.25},
        "abmil": shared,
        "transmil": {**shared, "heads": 2, "landmarks": 3},
        "snn": {**genes, "genes": 5},
        "mcat": {**genes, "features": levels, "heads": 2, "groups": {"a": [0, 3], "b": [1, 2, 3], "none": []}},
    }
    outputs, found = {}, {}
    for kind, arguments in own.items():
        network = build_network(kind, arguments).eval()
        with torch.inference_mode():
            for index, weight in enumerate(network.parameters()):
                weight.copy_(0.5 * tensor(1, weight.numel(), index).reshape(weight.shape))
            outputs[kind] = network(batch)
            hazards = fuse(outputs[kind]["logits"], present, survival=True)
        found[kind] = {
            "outputs": {name: rounded(value.ravel()) for name, value in flat(outputs[kind])},
            "risk": rounded(risk(hazards)),
            "loss": rounded(survival_loss(hazards, interval, event)),
        }
    student, teacher = outputs["student"], outputs["teacher"]
    pair = student["logits"]["20x"], teacher["logits"]["20x"]
    distil = {
        "survival": rounded(distil_logits(*pair, temperature=2.0, survival=True)),
        "classification": rounded(distil_logits(*pair, temperature=2.0, survival=False)),
        "tumor": rounded(distil_features(*(output["features"]["tumor"]["20x"] for output in (student, teacher)))),
    }
    return {
        "disentangled/teacher": {**found["teacher"], "orthogonality": rounded(orthogonality(teacher["features"]))},
        "disentangled/student": {**found["student"], "distil": distil},
        "wsi-only/train": found["student"],
        **{f"{kind}/train": found[kind] for kind in ("meanpool", "abmil", "transmil", "snn", "mcat")},
    }

"""Training of the baselines that are no networks: linear models on principal components, and retrieval."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.data.expression import ExpressionTransform
from histill.data.fold import Cohort, Labels, fit_expression
from histill.methods.baselines.linear import LinearModel
from histill.methods.baselines.retrieval import RetrievalModel
from histill.methods.checkpoint import Checkpoint
from histill.methods.fold_run import FoldRun

TRANSCRIPTOME = "transcriptome"  # what linear models read: every gene, as one set


def linear(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """A ridge model; the penalty is chosen by cross-validation, so the inner split is training data here."""
    patients = sorted(run.training + run.validation)
    labels = Labels.fit(run.task, run.cohort, patients)
    targets = [run.cohort.label(run.task, patient) for patient in patients]
    expression = None
    if "rna" in run.stage.reads:
        genes = {TRANSCRIPTOME: {TRANSCRIPTOME: run.cohort.expression.genes}}
        expression = fit_expression(run.cohort, patients, genes, run.config)
    inputs = linear_inputs(run.cohort, patients, run.stage.reads, expression)
    model = LinearModel.fit(inputs, labels, targets, run.config["methods"]["linear"])
    figures = {"patients": len(patients), "alpha": model.alpha}
    return Checkpoint(run.kind, labels, {}, model.state(), {}, expression, {}), figures


def retrieval(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """The average expression of the patients whose slides are most alike, judged by a ridge model of RNA."""
    patients = sorted(run.training + run.validation)
    labels = Labels.fit(run.task, run.cohort, patients)
    targets = [run.cohort.label(run.task, patient) for patient in patients]
    genes = {TRANSCRIPTOME: {TRANSCRIPTOME: run.cohort.expression.genes}}
    expression = fit_expression(run.cohort, patients, genes, run.config)
    inputs = linear_inputs(run.cohort, patients, run.stage.learns_from, expression)
    options = run.config["methods"]
    neighbours = options["retrieval"]["neighbours"]
    cases = run.cohort.codes(patients)
    model = RetrievalModel.fit(inputs, labels, targets, options["linear"], cases=cases, neighbours=neighbours)
    figures = {"patients": len(patients), "alpha": model.alpha}
    return Checkpoint(run.kind, labels, {}, model.state(), {}, expression, {}), figures


def linear_inputs(
    cohort: Cohort, patients: list[str], modalities: tuple[str, ...], expression: ExpressionTransform | None
) -> dict[str, np.ndarray]:
    """Modality -> [P, F]: mean-pooled features, all genes after the fitted transform."""
    inputs = {}
    if "slide" in modalities:
        inputs["slide"] = np.stack([cohort.bags.mean(patient) for patient in patients])
    if "rna" in modalities:
        inputs["rna"] = cohort.expression.transformed(patients, expression)[TRANSCRIPTOME]
    return inputs

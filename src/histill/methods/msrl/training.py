"""Training of MSRL: pre-training without labels, the student that borrows genes, and a model that never sees any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning
import torch
from torch import Tensor

from histill.config import GENE_GROUPS
from histill.data.expression import ExpressionTransform
from histill.data.expression_table import clinical_column
from histill.data.fold import fit_expression, fit_features
from histill.data.module import BagDataset, collate
from histill.errors import HistillError
from histill.methods.checkpoint import Checkpoint
from histill.methods.fold_run import FoldRun
from histill.methods.msrl.model import MSRL
from histill.methods.msrl.module import MSRLModule, PretrainModule
from histill.methods.msrl.pretraining import Pretrainer, transfer
from histill.subspaces import GENES

_CASES = {"slides": "bag"}  # a node is a patient, whatever training.slides asks of other methods
_SHARED = ("dim", "neighbours", "layers", "hidden", "unit", "pooling", "dropout")
_ONLINE = ("graph", "links", "policy", "search")
_VIEWS = ("projection", "fused_graph", "column_rate", "edge_rate")
_OPTIMISER = ("learning_rate", "weight_decay", "schedule")
_ALIGNMENT = ("temperature", "lambda_feature", "lambda_graph", "lambda_structure")
_BRANCHES = ("momentum", "update", "mixup")


def pretrain(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """Encoders, graph learners and GCNs of three views, on the training patients that have slide and RNA (§2.6).

    Of kind `msrl-pretrain-slide` of the slides alone, for MSRL_H.
    """
    lightning.seed_everything(run.stream, verbose=False)
    model, options = _options(run, "model"), _options(run, "pretrain")
    scalers = fit_features(run.cohort, run.training, seed=run.seed, log=run.log)
    expression = _expression(run) if "rna" in run.stage.reads else None
    arguments = {
        "features": {level: len(scaler.mean_) for level, scaler in scalers.items()},
        "groups": expression.members_[GENES] if expression else {},
        **{name: model[name] for name in _SHARED},
        **{name: options[name] for name in _VIEWS},
    }
    loss = {name: options[name] for name in ("temperature", "lambda_intra", "lambda_inter", "lambda_fused")}
    module = PretrainModule(Pretrainer(**arguments), **loss, **{name: options[name] for name in _OPTIMISER})
    parts = [
        run.bags(patients, scalers, expression=expression, more=_cohorts(run, patients), **_tiles(run, limit))
        for patients, limit in ((run.training, run.max_tiles), (run.validation, None))
    ]
    strata = parts[0].targets["cohort"].numpy()
    own = {name: options[name] for name in ("epochs", "batch_size")}
    weights, figures = run.fit(module, *parts, keep="last", strata=strata, **own)
    figures = {"patients": len(run.training), "genes": len(expression.genes_[GENES]) if expression else 0, **figures}
    return Checkpoint(run.kind, None, arguments, weights, scalers, expression, _CASES), figures


def student(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """The network that reads a slide and borrows genes; or (`msrl-slide`, MSRL_H) one that never sees any."""
    lightning.seed_everything(run.stream, verbose=False)
    model, options = _options(run, "model"), _options(run, "student")
    with_genes, labels = run.kind == "msrl", run.labels()
    (pretrained_in,) = run.before.values()
    before = Checkpoint.read(pretrained_in)
    scalers, expression = before.scalers, before.expression
    bags = run.cohort.bags.at({level: len(scaler.mean_) for level, scaler in scalers.items()})
    run = replace(run, cohort=replace(run.cohort, bags=bags))
    run.check()
    paired = [patient for patient in run.training if not with_genes or run.cohort.value(patient, "has_rna")]
    arguments = {
        "features": {level: len(scaler.mean_) for level, scaler in scalers.items()},
        "outputs": labels.outputs,
        "groups": expression.members_[GENES] if expression else {},
        "capacity": min(len(paired), options["buffer"]),
        "genes": with_genes,
        **{name: model[name] for name in (*_SHARED, *_ONLINE)},
    }
    network, pretrained = MSRL(**arguments), options["begin"] == "pretrained"
    if pretrained:
        state = {name: torch.from_numpy(value) for name, value in before.weights.items()}
        network.load_state_dict(transfer(state) if model["graph"] == "learned" else _encoders(state), strict=False)
    module = MSRLModule(
        network,
        labels,
        # A gene encoder that was not pre-trained has nothing else to learn from.
        train_genes=with_genes and (options["train_genes"] or not pretrained),
        warmup=0 if pretrained or not with_genes else options["warmup"],
        **{name: options[name] for name in (*_ALIGNMENT, *_BRANCHES, *_OPTIMISER)},
    )
    training, validation, all_tiles = (
        _supervised(run, patients, scalers, labels, expression, limit)
        for patients, limit in ((run.training, run.max_tiles), (run.validation, None), (run.training, None))
    )
    module.fill(_batches(all_tiles, options["batch_size"]))
    weights, figures = run.fit(module, training, validation, batch_size=options["batch_size"])
    figures = {"patients": len(run.training), "buffer": arguments["capacity"], **figures}
    return Checkpoint(run.kind, labels, arguments, weights, scalers, expression, _CASES), figures


def both(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """The student as it is, asked with the genes of the patient (MSRL_multi): nothing more is trained."""
    trained = Checkpoint.read(run.before["student"])
    return replace(trained, kind=run.kind, provenance=_CASES), {"patients": len(run.training)}


def _options(run: FoldRun, section: str) -> dict[str, Any]:
    return run.config["methods"]["msrl"][section]


def _encoders(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model with a static graph takes over: there is no learner in it."""
    return {name: value for name, value in transfer(state).items() if not name.startswith("learner.")}


def _expression(run: FoldRun) -> ExpressionTransform:
    from histill.transcriptome.gene_sets import current, read_gmt, shipped

    groups = _options(run, "model")["groups"]
    sets = current(shipped(groups) if groups in GENE_GROUPS else read_gmt(groups))
    if set(run.cohort.expression.genes).isdisjoint(gene for own in sets.values() for gene in own):
        raise HistillError(
            f"methods.msrl.model.groups: the expression table has no gene of '{groups}'",
            mend="name gene groups by the current HGNC symbols of genes in the table",
        )
    return fit_expression(run.cohort, run.training, {GENES: sets}, run.config)


def _tiles(run: FoldRun, limit: int | None) -> dict[str, Any]:
    """A bag a patient; and which tiles it has: their mean alone where that is all the network looks at."""
    pooled = _options(run, "model")["pooling"] == "mean"
    return {"limit": None if pooled else limit, "pooled": pooled, **_CASES}


def _cohorts(run: FoldRun, patients: list[str]) -> dict[str, Tensor]:
    """Target `cohort`: number of the cohort of each patient, int64 [P], among those of the training patients."""
    column = run.config["methods"]["msrl"]["cohort"]
    if column is None:
        return {"cohort": torch.zeros(len(patients), dtype=torch.int64)}
    known = clinical_column(run.config, column, key="methods.msrl.cohort")
    names = sorted({known.get(patient) or "" for patient in run.cohort.patients["patient_id"]})
    return {"cohort": torch.tensor([names.index(known.get(patient) or "") for patient in patients])}


def _supervised(
    run: FoldRun, patients: list[str], scalers, labels, expression: ExpressionTransform | None, limit: int | None
) -> BagDataset:
    more = {
        "case": torch.from_numpy(run.cohort.codes(patients)),
        "paired": torch.tensor([float(run.cohort.value(patient, "has_rna")) for patient in patients]),
        **_cohorts(run, patients),
    }
    tiles = _tiles(run, limit)
    return run.bags(patients, scalers, labels=labels, expression=expression, more=more, **tiles)


def _batches(dataset: BagDataset, size: int) -> Iterator[dict]:
    for start in range(0, len(dataset), size):
        yield collate([dataset[index] for index in range(start, min(start + size, len(dataset)))])

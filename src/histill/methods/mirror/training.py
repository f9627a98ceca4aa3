"""Training of MIRROR: pre-training without labels, probes of the frozen encoders, and the student."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from histill.cohort.tasks import Task
from histill.data.expression import ExpressionTransform
from histill.data.fold import Labels, fit_expression, fit_features
from histill.data.gene_selection import read_gene_list
from histill.data.geometry import COARSE, FINE
from histill.data.subset import random_stream
from histill.errors import HistillError
from histill.methods.checkpoint import Checkpoint
from histill.methods.distillation import Lessons, StudentModule
from histill.methods.fold_run import FoldRun
from histill.methods.linear_head import Examples, published_head, ridge_head
from histill.methods.mirror.model import MIRROR
from histill.methods.mirror.module import PretrainModule
from histill.methods.mirror.probe import Probe, set_heads
from histill.methods.mirror.student import Student
from histill.methods.predict import bags_of, network_outputs
from histill.subspaces import GENES

_FITTING = ("epochs", "batch_size")
_MODULE = (
    *("learning_rate", "weight_decay", "schedule", "target", "clustering", "free_nats"),
    *(f"lambda_{name}" for name in ("align", "slide", "rna", "style", "cluster")),
)


def pretrain(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """Both encoders and the heads of the pretexts, on the training patients that have slide and RNA."""
    lightning.seed_everything(run.stream, verbose=False)
    config = run.config["methods"]["mirror"]
    level = magnification(run.cohort.bags.levels, config["model"]["magnification"])
    run = at_level(run, level)
    run.check()
    scalers = fit_features(run.cohort, run.training, seed=run.seed, log=run.log)
    expression = _expression(run)
    options = {name: value for name, value in config["model"].items() if name != "magnification"}
    arguments = {"features": {level: len(scalers[level].mean_)}, "genes": len(expression.genes_[GENES]), **options}
    network = MIRROR(**arguments)
    module = PretrainModule(network, **{name: config["pretrain"][name] for name in _MODULE})
    own = {name: config["pretrain"][name] for name in _FITTING}
    limit = config["pretrain"]["max_tiles"]
    training = run.bags(run.training, scalers, expression=expression, limit=limit)
    validation = run.bags(run.validation, scalers, expression=expression)
    weights, figures = run.fit(module, training, validation, keep="last", **own)
    figures = {"patients": len(run.training), "genes": arguments["genes"], **figures}
    return Checkpoint(run.kind, None, arguments, weights, scalers, expression, {}), figures


def magnification(levels: list[str], asked: str | None) -> str:
    """The magnification to read: the one asked for, or the finest there is.

    Raises
    ------
    HistillError
        When it is not there, or it cannot be told which is the finest.
    """
    mend = f"set methods.mirror.model.magnification to one of {', '.join(levels)}"
    if asked is not None:
        if asked not in levels:
            raise HistillError(f"methods.mirror.model.magnification: no store has '{asked}'", mend=mend)
        return asked
    for level in (FINE, COARSE):
        if level in levels:
            return level
    if len(levels) > 1:
        raise HistillError(f"which of {', '.join(levels)} is MIRROR to read?", mend=mend)
    return levels[0]


def at_level(run: FoldRun, level: str) -> FoldRun:
    """The run with bags of one magnification; patients without a tile of it are none of its patients."""
    bags = run.cohort.bags
    return replace(run, cohort=replace(run.cohort, bags=bags.at({level: bags.features[level]})))


def _expression(run: FoldRun) -> ExpressionTransform:
    """All genes, or those that are chosen by training patients' classes and kept from a list (§1.5, in each fold)."""
    sets = {GENES: {GENES: run.cohort.expression.genes}}
    options = run.config["methods"]["mirror"]["genes"]
    selection = {"list": read_gene_list(options["list"]) if options["list"] else None, "minimum": options["minimum"]}
    if options["list"] is None and options["rfe"] is None:
        selection = None
    classes = None
    if options["rfe"] is not None:
        task = Task.from_config(options["rfe"], run.config["tasks"][options["rfe"]])
        classes = {patient: run.cohort.label(task, patient) for patient in run.training}
    return fit_expression(run.cohort, run.training, sets, run.config, selection=selection, classes=classes)


def probe(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """A linear head on the embeddings of slide, RNA, or both, and heads that learn from few patients."""
    lightning.seed_everything(run.stream, verbose=False)
    pretrained, reads = Checkpoint.read(run.before["pretrain"]), list(run.stage.reads)
    if "slide" in reads:
        run = at_level(run, *pretrained.arguments["features"])
        run.check()
    # Nothing is stopped early, so the inner split is training data here.
    patients = sorted(run.training + run.validation)
    labels = Labels.fit(run.task, run.cohort, patients)
    options = run.config["methods"]["mirror"]["probe"]
    draws = [(shots, draw) for shots in options["shots"] for draw in range(options["draws"])]
    arguments = {
        "reads": reads,
        "outputs": labels.outputs,
        "pretrained": pretrained.arguments,
        "shots": len(draws),
    }
    network = Probe(**arguments)
    own = network.state_dict()
    network.load_state_dict(own | {name: torch.from_numpy(w) for name, w in pretrained.weights.items() if name in own})
    scalers = pretrained.scalers if "slide" in reads else {}
    expression = pretrained.expression if "rna" in reads else None
    checkpoint = Checkpoint(run.kind, labels, arguments, _arrays(network), scalers, expression, {})
    checkpoint.provenance["slides"] = run.config["training"]["slides"]
    examples = _examples(run, checkpoint, patients, labels)
    chosen = [np.unique(examples.patient), *(_few(examples, *draw, run.stream) for draw in draws)]
    heads, alphas = [], []
    for rows in chosen:
        few = examples.of(rows)
        if options["solver"] == "adam":
            heads.append(published_head(few, labels, seed=run.stream))
        else:
            weight, bias, alpha = ridge_head(few, labels, options["alphas"], seed=run.stream)
            heads.append((weight, bias))
            alphas.append(alpha)
    set_heads(network, heads)
    checkpoint.weights = _arrays(network)
    figures: dict[str, Any] = {"patients": len(patients)}
    if alphas:
        figures["alpha"] = alphas[0]
    if draws:
        figures["few_shot"] = [[*draw, len(rows)] for draw, rows in zip(draws, chosen[1:], strict=True)]
    return checkpoint, figures


def _arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in network.state_dict().items()}


def _examples(run: FoldRun, checkpoint: Checkpoint, patients: list[str], labels: Labels) -> Examples:
    """Embeddings of every bag of some patients that has a tile, by the frozen encoders in evaluation mode."""
    outputs = network_outputs(checkpoint, run.cohort, patients, device=run.device)
    parts = [outputs[f"features:{name}"] for name in run.stage.reads]
    x = torch.cat([value for part in parts for value in part.values()], dim=-1).double()
    there = torch.stack(list(outputs["present"].values())).any(dim=0)
    bags = bags_of(checkpoint, run.cohort, patients)
    names = [name for name, seen in zip(bags.names, there, strict=True) if seen]
    bags = replace(bags, names=names, patient=bags.patient[there.numpy()])
    encoded = torch.tensor([labels.encode(run.cohort.label(run.task, patient)) for patient in patients])
    label, event = encoded[torch.from_numpy(bags.patient)].T
    return Examples(x[there], label, event, bags.patient, torch.from_numpy(bags.weights).double())


def _few(examples: Examples, shots: int, draw: int, seed: int) -> np.ndarray:
    """Patients of one draw: `shots` of each class or interval, without replacement; all where there are fewer."""
    patients, first = np.unique(examples.patient, return_index=True)
    label = examples.label.numpy()[first]
    generator = random_stream(seed, draw, f"{shots} shots")
    order = generator.permutation(len(patients))
    return np.concatenate([patients[order][label[order] == own][:shots] for own in np.unique(label)])


def student(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """The slide encoder, trained on the labels and on what the probe of slide and RNA says."""
    lightning.seed_everything(run.stream, verbose=False)
    teacher = Checkpoint.read(run.before["fused"])
    pretrained = teacher.arguments["pretrained"]
    run = at_level(run, *pretrained["features"])
    run.check()
    labels = teacher.labels
    arguments = {"outputs": labels.outputs, "pretrained": pretrained}
    network = Student(**arguments)
    lessons = Lessons.read(run.before["fused"], run.cohort, run.training, run.validation, device=run.device)
    network.begin(lessons.weights | _refitted(run, lessons, labels))
    options = dict(run.config["methods"]["mirror"]["student"])
    optimiser = {**run.optimiser, "learning_rate": options.pop("learning_rate")}
    module = StudentModule(network, labels, **options, **optimiser)
    known: dict[str, Any] = {"labels": labels, "lessons": lessons}
    training = run.bags(run.training, teacher.scalers, **known, limit=run.max_tiles)
    validation = run.bags(run.validation, teacher.scalers, **known)
    weights, figures = run.fit(module, training, validation)
    figures = {"patients": len(run.training), **figures}
    return Checkpoint(run.kind, labels, arguments, weights, teacher.scalers, None, {}), figures


def _refitted(run: FoldRun, lessons: Lessons, labels: Labels) -> dict[str, Tensor]:
    """The fused head once more, without the inner split: weights for the student to begin with.

    The lessons' logits become this head's. The probe's own head has seen the outcomes of the patients that decide when
    the student stops.
    """
    (level,) = lessons.outputs["logits"]
    x = torch.cat([lessons.outputs[f"features:{name}"][level] for name in ("slide", "rna")], dim=-1).double()
    own = lessons.fitted
    encoded = torch.tensor([labels.encode(run.cohort.label(run.task, patient)) for patient in lessons.patients])
    label, event = encoded[own].T
    number = np.unique(np.array(lessons.patients)[own.numpy()], return_inverse=True)[1]
    examples = Examples(x[own], label, event, number, torch.ones(len(label), dtype=torch.float64))
    alphas = run.config["methods"]["mirror"]["probe"]["alphas"]
    weight, bias, _ = ridge_head(examples, labels, alphas, seed=run.stream)
    lessons.outputs["logits"][level] = (x @ weight.T + bias).float()
    return {"head.weight": weight.float(), "head.bias": bias.float()}

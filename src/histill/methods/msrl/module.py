"""LightningModules of both stages: label-free pre-training, and training against the buffer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from histill.data.fold import Labels
from histill.errors import HistillError
from histill.methods import module as supervised
from histill.methods.contrast import effective_rank, recall
from histill.methods.module import SupervisedModule, TrainedModule
from histill.methods.msrl.graph import homophily
from histill.methods.msrl.losses import info_nce, structural_bce
from histill.methods.msrl.mixup import Mix
from histill.methods.msrl.model import CASE, MSRL
from histill.methods.msrl.pretraining import FUSED, SLIDE, Pretrainer, Views
from histill.methods.outputs import probabilities, task_loss
from histill.subspaces import GENES

UPDATES = ("target", "online", "frozen")
_GENES = supervised.GENES + GENES
_AVERAGED = ("slide", "learner", "gcn")
_RECALL = 10


class PretrainModule(TrainedModule):
    """Stage 1, L_intra + L_inter + L_fused (specification §2.6). Every case has slide and genes.

    Of a model without genes (MSRL_H) L_intra of the slides is all there is.

    A batch's cases are one graph. So are the held-out cases, whose loss is computed at the end of the epoch under the
    same augmentation every time, with monitors of collapse: effective rank of each learner's embeddings, share of the
    (fused) graph's edges inside a cohort, and how often a case's genes are among the ten nearest to its slide.

    Parameters
    ----------
    temperature
        Of InfoNCE.
    lambda_intra, lambda_inter, lambda_fused
        Weights of the terms.
    """

    def __init__(
        self,
        model: Pretrainer,
        *,
        temperature: float = 0.2,
        lambda_intra: float = 1.0,
        lambda_inter: float = 1.0,
        lambda_fused: float = 1.0,
        **training: Any,
    ):
        super().__init__(model, **training)
        self.temperature = temperature
        self.lambdas = {"intra": lambda_intra, "inter": lambda_inter, "fused": lambda_fused}
        self._held_out: list[tuple[Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: dict, index: int) -> Tensor:
        _, *nodes = self._encode(batch)
        terms = {name: (term * batch["weight"]).mean() for name, term in self._terms(self.model(*nodes)).items()}
        total = torch.stack(list(terms.values())).sum()
        for name, value in {"loss": total, **terms}.items():
            self.log(f"train_{name}", value, on_step=False, on_epoch=True, batch_size=len(nodes[0]), sync_dist=True)
        return total

    def on_validation_epoch_start(self) -> None:
        self._held_out = []

    def validation_step(self, batch: dict, index: int) -> None:
        """Of cases, each in one bag."""
        self._held_out.append(self._encode(batch))

    def on_validation_epoch_end(self) -> None:
        own = tuple(torch.cat(parts) for parts in zip(*self._held_out, strict=True))
        cohort, *nodes = _of_all_ranks(own)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            views = self.model(*nodes)
        terms = {name: term.mean() for name, term in self._terms(views).items()}
        figures = {f"validation_{name}": value for name, value in terms.items()}
        figures["validation_loss"] = torch.stack(list(terms.values())).sum()
        for view, embedding in views.embeddings.items():
            figures[f"monitor_effective_rank_{view}"] = effective_rank(embedding)
        figures["monitor_homophily"] = homophily(list(views.graphs.values())[-1], cohort)
        if GENES in views.states:
            states = [nn.functional.normalize(views.states[view], dim=1) for view in (SLIDE, GENES)]
            cases = torch.arange(len(cohort), device=cohort.device)
            figures[f"monitor_recall{_RECALL}"] = recall(states[0] @ states[1].T, cases, _RECALL)
        for name, value in figures.items():
            self.log(name, value, sync_dist=True)
        self._held_out = []

    def _encode(self, batch: dict) -> tuple[Tensor, ...]:
        """Cohort, h and g, if there are genes."""
        targets = batch["targets"]
        return targets["cohort"], *self.model.encode({**batch, "genes": {GENES: targets.get(_GENES)}})

    def _terms(self, views: Views) -> dict[str, Tensor]:
        """Weighted value a case [K] of each term."""
        states, augmented = views.states, views.augmented
        pairs = {"intra": [(states[view], augmented[view]) for view in augmented]}
        if GENES in states:
            pairs["inter"] = [(states[SLIDE], states[GENES])]
            pairs["fused"] = [(states[FUSED], states[view]) for view in (SLIDE, GENES)]
        return {
            name: self.lambdas[name] * sum(info_nce(*pair, self.temperature) for pair in own)
            for name, own in pairs.items()
        }


class MSRLModule(SupervisedModule):
    """Stage 2: an online branch that reads slides, a target branch that reads genes too, and the buffer (§2.7, §2.8).

    The online branch learns the task, from its own prompt and from its neighbours in the buffer, among which a case
    never finds itself. The target is the moving average of the online slide encoder, learner and GCN; it shares the
    gene encoder, drops nothing out and gets no gradient. Patients without genes learn the task and nothing of the
    target, and are not in the buffer; a model that reads no genes (MSRL_H) takes all as its target's.

    Targets of a batch beside label and event: `case` int64 codes, `cohort` int64, and of a model that reads genes
    `paired`, 1 where they are measured, and `genes:genes`.

    Parameters
    ----------
    lambda_feature, lambda_graph, lambda_structure
        Weights of the alignment before the graph, after it, and of its edges.
    temperature
        Of InfoNCE.
    momentum
        m of the target: m target + (1 − m) online after every step of the optimiser.
    update
        What is written to the buffer after every batch: features of the `target`, of the `online` branch, which has no
        genes, or nothing (`frozen`).
    mixup
        α of `Mix`; 0 for none.
    train_genes
        The gene encoder learns the task by a linear head on [g ; h]; else it stays as it is given.
    warmup
        Epochs of the task and the alignment before the graph alone.
    """

    def __init__(
        self,
        model: MSRL,
        labels: Labels,
        *,
        lambda_feature: float = 1.0,
        lambda_graph: float = 1.0,
        lambda_structure: float = 1.0,
        temperature: float = 0.2,
        momentum: float = 0.99,
        update: str = "target",
        mixup: float = 0.0,
        train_genes: bool = False,
        warmup: int = 0,
        **training: Any,
    ):
        super().__init__(model, labels, **training)
        if update not in UPDATES:
            raise HistillError(f"update '{update}' of the buffer is not known", mend=f"use one of {', '.join(UPDATES)}")
        self.lambda_feature, self.lambda_graph, self.lambda_structure = lambda_feature, lambda_graph, lambda_structure
        self.temperature, self.momentum, self.update = temperature, momentum, update
        self.mixup, self.warmup = mixup, warmup
        self.target = nn.ModuleDict({name: copy.deepcopy(getattr(model, name)) for name in _AVERAGED})
        self.target.requires_grad_(False)
        self.multimodal: nn.Linear | None = None
        if model.genes is not None:
            model.genes.requires_grad_(train_genes)
            if train_genes:
                self.multimodal = nn.Linear(model.buffer.values.shape[1], model.head.out_features)
        self.train(self.training)

    def train(self, mode: bool = True) -> MSRLModule:
        super().train(mode)
        self.target.eval()  # it drops nothing out
        return self

    def inputs(self, batch: dict) -> dict:
        """The batch as it is: validation is of what is wanted in the end, a prediction from the slide alone."""
        return batch

    def fused(self, output: dict, batch: dict) -> Tensor:
        """Class probabilities or hazards [B, C]: there is one prediction of a case."""
        return probabilities(output["logits"][CASE], self.survival)

    def fill(self, batches: Iterable[dict]) -> None:
        """Write the patients of training batches that have genes to the buffer, before the first epoch."""
        for batch in batches:
            self._write(batch, "target")

    def losses(self, batch: dict) -> dict[str, Tensor]:
        """Every term, weighted, one value a patient [B]."""
        model, targets = self.model, batch["targets"]
        cases, there, paired = targets["case"], _there(batch), self._paired(batch)
        mix = Mix.draw(len(cases), self.mixup, device=cases.device)
        paired = paired & paired[mix.partner]
        slide = model.slide.project(mix(model.slide.pool(batch["tokens"], batch["mask"])))
        nodes = self._prompted(slide)
        online = model.structure(nodes, cases)
        with torch.no_grad():
            aim = torch.where(paired[:, None], self._authentic(batch, mix), nodes)
            target = model.structure(aim, cases, learner=self.target["learner"], gcn=self.target["gcn"])

        align = partial(info_nce, temperature=self.temperature, cases=cases[paired])
        none = nodes.new_zeros(int(paired.sum()))
        aligned = {"feature": self.lambda_feature * align(nodes[paired], aim[paired]), "graph": none, "structure": none}
        if self.current_epoch >= self.warmup:
            edges = structural_bce(online.similarity[paired], target.edges[paired], online.pairs[paired])
            aligned["graph"] = self.lambda_graph * align(online.states[paired], target.states[paired])
            aligned["structure"] = self.lambda_structure * edges
        terms = {CASE: self._task(model.read_out(nodes, online.states), targets, mix) * there}
        for name, value in aligned.items():
            terms[name] = torch.zeros_like(terms[CASE]).masked_scatter(paired, value.to(terms[CASE].dtype))
        if self.multimodal is not None:
            genes = model.genes(mix(targets[_GENES]))
            logits = self.multimodal(model.fuse(genes, slide.detach()))
            terms["genes"] = self._task(logits, targets, mix) * paired
        return terms

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target towards the online branch."""
        for name, own in self.target.items():
            for value, online in zip(own.parameters(), getattr(self.model, name).parameters(), strict=True):
                value.lerp_(online, 1 - self.momentum)

    def on_train_batch_end(self, outputs: Any, batch: dict, batch_idx: int) -> None:
        if self.update != "frozen":
            self._write(batch, self.update)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        buffer = self.model.buffer
        embedding = self.model.learner(buffer.values[buffer.rows()].float())
        self.log("monitor_effective_rank", effective_rank(embedding), sync_dist=True)

    @torch.no_grad()
    def _write(self, batch: dict, branch: str) -> None:
        """Write what a branch, without mixup and dropout, makes of the patients with genes to the buffer."""
        model, targets = self.model, batch["targets"]
        with _evaluated(model):
            if branch == "target":
                nodes = self._authentic(batch, Mix.draw(len(targets["case"]), 0.0, device=targets["case"].device))
            else:
                nodes = self._prompted(model.slide(batch["tokens"], batch["mask"]))
        paired = self._paired(batch)
        written = _of_all_ranks((targets["case"][paired], nodes[paired], targets["cohort"][paired]))
        model.buffer.write(*written)

    def _prompted(self, slide: Tensor) -> Tensor:
        """Online nodes f [B, D] of slide vectors h [B, d]: prompt and slide."""
        return self.model.fuse(None if self.model.genes is None else self.model.inductor(slide), slide)

    def _authentic(self, batch: dict, mix: Mix) -> Tensor:
        """The target's nodes f̂ [B, D]: measured genes and slide."""
        encoder, genes = self.target["slide"], self.model.genes
        slide = encoder.project(mix(encoder.pool(batch["tokens"], batch["mask"])))
        if genes is None:
            return self.model.fuse(None, slide)
        with _evaluated(genes):
            return self.model.fuse(genes(mix(batch["targets"][_GENES])), slide)

    def _paired(self, batch: dict) -> Tensor:
        """Patients [B] of whom there is all that the target reads, bool."""
        there = _there(batch)
        return there if self.model.genes is None else there & batch["targets"]["paired"].bool()

    def _task(self, logits: Tensor, targets: dict[str, Tensor], mix: Mix) -> Tensor:
        predicted = probabilities(logits.float(), self.survival)
        label, event = targets["label"], targets["event"]
        own = task_loss(predicted, label, event, self.weights)
        other = task_loss(predicted, label[mix.partner], event[mix.partner], self.weights)
        return mix.share * own + (1 - mix.share) * other


def _there(batch: dict) -> Tensor:
    """Bags [B] with a tile at any level, bool."""
    return torch.stack([mask.any(dim=1) for mask in batch["mask"].values()]).any(dim=0)


def _of_all_ranks(rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Rows of this rank's cases, one tensor a quantity, and those of all others, in the order of the ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    ranks: list = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, [own.cpu() for own in rows])
    return tuple(torch.cat(parts).to(own.device) for parts, own in zip(zip(*ranks, strict=True), rows, strict=True))


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode; every part of it then goes back to its own."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode

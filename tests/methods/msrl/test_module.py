from __future__ import annotations

import logging
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from histill.errors import HistillError
from histill.methods.msrl.mixup import Mix
from histill.methods.msrl.model import MSRL
from histill.methods.msrl.module import MSRLModule, PretrainModule
from histill.methods.msrl.pretraining import Pretrainer, transfer

FEATURES, GENES, DIM = {"10x": 5, "20x": 7}, 9, 8
GROUPS = {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7, 8]}
CASES, CLASSES = 24, 3
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log", "ignore:.*eval mode", "ignore:.*LeafSpec")


def labels(survival=False):
    task = SimpleNamespace(type="survival" if survival else "classification")
    return SimpleNamespace(task=task, outputs=CLASSES, weights=np.ones(CLASSES))


def network(capacity=CASES, seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"dim": DIM, "neighbours": 3, "hidden": 6, "dropout": 0.0}
    return MSRL(FEATURES, CLASSES, GROUPS, capacity, **{**sizes, **options})


def module(net=None, *, survival=False, **options):
    net = net or network()
    torch.nn.init.normal_(net.slide.branch[-1].weight, generator=torch.Generator().manual_seed(1))  # it begins at zero
    return MSRLModule(net, labels(survival), learning_rate=1e-2, weight_decay=0.0, **options)


def batch(rows=range(CASES), seed=0, unpaired=()):
    """Some of 24 patients, two tiles a magnification; genes of those in `unpaired` are not known."""
    rows, generator = torch.as_tensor(list(rows)), torch.Generator().manual_seed(seed)
    tokens = {level: torch.randn(CASES, 2, width, generator=generator)[rows] for level, width in FEATURES.items()}
    genes = torch.randn(CASES, GENES, generator=generator)
    paired = torch.ones(CASES)
    paired[list(unpaired)], genes[list(unpaired)] = 0, 0
    targets = {
        "label": rows % CLASSES,
        "event": rows % 2,
        "case": 100 + rows,
        "cohort": rows % 2,
        "paired": paired[rows],
        "genes:genes": genes[rows],
    }
    mask = {level: torch.ones(len(rows), 2, dtype=torch.bool) for level in FEATURES}
    patient = torch.arange(len(rows))
    return {"tokens": tokens, "mask": mask, "targets": targets, "weight": torch.ones(len(rows)), "patient": patient}


def filled(**options):
    made = module(**options)
    made.fill([batch()])
    return made


def step(made, rows=range(8), optimizer=None):
    """What the trainer does with a batch."""
    optimizer = optimizer or torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.05)
    own = batch(rows)
    optimizer.zero_grad()
    made.training_step(own, 0).backward()
    optimizer.step()
    made.follow()
    made.on_train_batch_end(None, own, 0)


@pytest.fixture(autouse=True)
def _small():
    """Lightning says nothing, and threads do not wait for each other over tiny matrices."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TestSelfExclusion:
    @pytest.mark.parametrize("links", ["buffer", "all"])
    @pytest.mark.parametrize("survival", [False, True])
    def test_a_case_cannot_read_its_own_row(self, links, survival):
        made = filled(net=network(links=links), survival=survival, train_genes=True)
        before = made.losses(batch(range(8)))
        own = torch.isin(made.model.buffer.case, batch(range(8))["targets"]["case"])
        made.model.buffer.values[own] = torch.nn.functional.one_hot(batch()["targets"]["label"][:8], 16).half()
        for name, term in made.losses(batch(range(8))).items():
            assert torch.equal(term, before[name]), name

    def test_but_it_reads_those_of_others(self):
        made = filled()
        before = made.losses(batch(range(8)))
        made.model.buffer.values[8:] = -made.model.buffer.values[8:]
        assert not torch.equal(made.losses(batch(range(8)))["case"], before["case"])


class TestTarget:
    def test_gets_no_gradient_and_the_online_branch_does(self):
        made = filled(train_genes=True)
        made.training_step(batch(range(8)), 0).backward()
        assert all(p.grad is None and not p.requires_grad for p in made.target.parameters())
        parts = ("slide", "inductor", "genes", "learner", "gcn", "head")
        assert all(any(p.grad.any() for p in getattr(made.model, name).parameters()) for name in parts)

    @pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
    def test_is_a_moving_average(self, momentum):
        made = filled(momentum=momentum)
        before = {name: value.clone() for name, value in made.target.state_dict().items()}
        step(made)
        for name, value in made.target.state_dict().items():
            part, _, rest = name.partition(".")
            online = getattr(made.model, part).state_dict()[rest]
            assert not torch.equal(online, before[name]), name
            torch.testing.assert_close(value, momentum * before[name] + (1 - momentum) * online)
            if momentum in (0.0, 1.0):
                assert torch.equal(value, before[name] if momentum else online)

    def test_drops_nothing_out(self):
        made = filled(net=network(dropout=0.5))
        made.train()
        modes = {name: part.training for name, part in made.target.items()}
        assert modes == {"slide": False, "learner": False, "gcn": False}
        first, second = (made._authentic(batch(), Mix.draw(CASES, 0.0, torch.device("cpu"))) for _ in range(2))
        assert torch.equal(first, second)
        made.fill([batch()])
        assert all(part.training for part in made.model.modules())

    def test_is_aligned_to_before_the_graph_and_after_it(self):
        made = filled(momentum=1.0)
        optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-2)
        first = {name: term.mean().item() for name, term in made.losses(batch(range(12))).items()}
        for _ in range(40):
            step(made, range(12), optimizer)
        last = {name: term.mean().item() for name, term in made.losses(batch(range(12))).items()}
        assert all(last[name] < 0.9 * first[name] for name in ("case", "feature", "graph", "structure"))


class TestBuffer:
    def test_is_filled_with_measured_genes(self):
        made = filled()
        whole = batch()
        genes = made.model.genes.eval()(whole["targets"]["genes:genes"])
        slide = made.target["slide"](whole["tokens"], whole["mask"])
        torch.testing.assert_close(made.model.buffer.values, made.model.fuse(genes, slide).half())
        assert made.model.buffer.case.tolist() == whole["targets"]["case"].tolist()
        assert made.model.buffer.cohort.tolist() == whole["targets"]["cohort"].tolist()

    def test_patients_without_genes_are_not_in_it(self):
        made = module()
        made.fill([batch(unpaired=[0, 5])])
        assert not {100, 105} & set(made.model.buffer.case.tolist())
        assert len(made.model.buffer) == CASES - 2

    def test_keyed_training_keeps_every_case_once(self):
        made = filled()
        for start in (0, 8, 16):
            step(made, range(start, start + 8))
        assert sorted(made.model.buffer.case.tolist()) == list(range(100, 100 + CASES))
        assert made.model.buffer.age.tolist() == list(range(CASES, 2 * CASES))

    def test_a_ring_forgets_the_oldest(self):
        made = module(network(capacity=10, policy="fifo"))
        made.fill([batch(range(16))])
        assert sorted(made.model.buffer.case.tolist()) == list(range(106, 116))
        step(made, range(16, 20))
        assert sorted(made.model.buffer.case.tolist()) == list(range(110, 120))
        step(made, range(16, 20))
        assert sorted(made.model.buffer.case.tolist()) == [114, 115, 116, 116, 117, 117, 118, 118, 119, 119]

    @pytest.mark.parametrize("update", ["target", "online", "frozen"])
    def test_what_is_written_after_a_batch(self, update):
        made = filled(update=update)
        before = made.model.buffer.values.clone()
        step(made)
        assert torch.equal(made.model.buffer.values[8:], before[8:])
        own, now = batch(range(8)), made.model.eval()
        if update == "frozen":
            expected = before[:8]
        elif update == "online":
            expected = now.nodes({part: own[part] for part in ("tokens", "mask")}).half()
        else:
            genes, slide = now.genes(own["targets"]["genes:genes"]), made.target["slide"](own["tokens"], own["mask"])
            expected = now.fuse(genes, slide).half()
        torch.testing.assert_close(made.model.buffer.values[:8], expected)

    def test_mixtures_are_not_written(self):
        plain, mixed = filled(), filled(mixup=5.0)
        for made in (plain, mixed):
            made.on_train_batch_end(None, batch(range(8)), 0)
        assert torch.equal(plain.model.buffer.values, mixed.model.buffer.values)

    def test_unknown_update_is_refused(self):
        with pytest.raises(HistillError, match="update 'both'"):
            module(update="both")


class TestTerms:
    def test_patients_without_genes_learn_the_task_alone(self):
        made = filled(train_genes=True)
        terms = made.losses(batch(range(8), unpaired=[1, 6]))
        for name in ("feature", "graph", "structure", "genes"):
            assert (terms[name] == 0).tolist() == [row in (1, 6) for row in range(8)], name
        assert terms["case"].all()

    def test_patients_without_a_tile_learn_nothing_and_are_not_in_the_buffer(self):
        own = batch(range(8))
        for mask in own["mask"].values():
            mask[2] = False
        made = filled(train_genes=True)
        assert all((term == 0).tolist() == [row == 2 for row in range(8)] for term in made.losses(own).values())
        made.on_train_batch_end(None, own, 0)
        assert made.model.buffer.age[:8].tolist() == [24, 25, 2, 26, 27, 28, 29, 30]

    def test_nobody_has_genes(self):
        terms = filled(train_genes=True).losses(batch(range(4), unpaired=range(4)))
        assert all(term.isfinite().all() for term in terms.values())
        assert not any(terms[name].any() for name in ("feature", "graph", "structure", "genes"))

    def test_warm_up_has_the_task_and_the_alignment_before_the_graph(self):
        warm, later = filled(warmup=1).losses(batch(range(8))), filled().losses(batch(range(8)))
        assert warm.keys() == later.keys() == {"case", "feature", "graph", "structure"}  # a curve has the same columns
        for name in ("graph", "structure"):
            assert not warm[name].any()
            assert later[name].all()

    def test_weights_of_the_terms(self):
        plain = filled().losses(batch(range(8)))
        weighted = filled(lambda_feature=2.0, lambda_graph=3.0, lambda_structure=0.0).losses(batch(range(8)))
        for name, weight in {"case": 1, "feature": 2, "graph": 3, "structure": 0}.items():
            torch.testing.assert_close(weighted[name], weight * plain[name])

    def test_a_gene_encoder_that_is_not_trained_stays(self):
        made = filled()
        before = [p.clone() for p in made.model.genes.parameters()]
        step(made)
        assert all(torch.equal(p, old) for p, old in zip(made.model.genes.parameters(), before, strict=True))

    def test_without_genes_the_target_is_the_slide(self):
        made = filled(net=network(genes=False))
        terms = made.losses(batch(range(8), unpaired=range(8)))
        assert all(terms[name].all() for name in ("case", "feature", "graph", "structure"))
        assert made.model.buffer.values.shape == (CASES, DIM)
        assert len(made.model.buffer) == CASES

    def test_mixed_outcomes_are_weighed_by_their_shares(self):
        made, mix = filled(), Mix(torch.tensor([1, 2, 0]), 0.75)
        logits, targets = torch.randn(3, CLASSES), batch(range(3))["targets"]
        nll = -logits.log_softmax(dim=1)
        expected = 0.75 * nll[range(3), [0, 1, 2]] + 0.25 * nll[range(3), [1, 2, 0]]
        torch.testing.assert_close(made._task(logits, targets, mix), expected)
        torch.testing.assert_close(mix(torch.eye(3))[0], torch.tensor([0.75, 0.25, 0.0]))

    def test_a_mixture_with_a_patient_without_genes_has_none(self, monkeypatch):
        swap = Mix(torch.tensor([1, 0, 3, 2]), 0.6)
        made = filled(mixup=1.0)
        monkeypatch.setattr(Mix, "draw", classmethod(lambda *_, **__: swap))
        terms = made.losses(batch(range(4), unpaired=[0]))
        assert (terms["feature"] == 0).tolist() == [True, True, False, False]

    def test_mixup_is_of_random_partners_and_shares(self):
        torch.manual_seed(0)
        drawn = [Mix.draw(16, 0.2, torch.device("cpu")) for _ in range(200)]
        shares = torch.tensor([mix.share for mix in drawn])
        assert all(sorted(mix.partner.tolist()) == list(range(16)) for mix in drawn)
        assert 0.4 < shares.mean() < 0.6
        assert ((shares < 0.1) | (shares > 0.9)).float().mean() > 0.5


def loader(batches):
    return DataLoader(batches, batch_size=None)


def trained(made, training, validation, epochs=1):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(made, loader(training), loader(validation))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("survival", [False, True])
def test_training_moves_the_target_once_a_step_and_validates_without_genes(survival):
    made = filled(momentum=0.5, survival=survival)
    steps = []
    made.follow = lambda: steps.append(MSRLModule.follow(made))
    held_out = [batch([20]), batch([21])]
    figures = trained(made, [batch(range(8)), batch(range(8, 16))], held_out)
    assert len(steps) == 2
    assert figures["monitor_effective_rank"] > 1
    assert {"train_loss", "train_case", "train_feature", "train_graph", "train_structure"} <= set(figures)
    for own in held_out:
        own["targets"]["genes:genes"] = own["targets"]["genes:genes"] + 5
    again = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (figures_again,) = again.validate(made, loader(held_out), verbose=False)
    assert figures_again["validation_loss"] == figures["validation_loss"] == figures["validation_task"]


def pretrainer(seed=0, groups=GROUPS, **options):
    torch.manual_seed(seed)
    return Pretrainer(FEATURES, groups, dim=DIM, neighbours=3, hidden=6, projection=6, dropout=0.0, **options)


def test_transfer_is_all_of_stage_2_but_inductor_head_and_buffer():
    before, after = pretrainer(), network(seed=1)
    state = transfer(before.state_dict())
    missing, unexpected = after.load_state_dict(state, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"inductor", "head", "buffer"}
    assert torch.equal(after.gcn.first.weight, before.gcns["fused"].first.weight)
    assert torch.equal(after.slide.skip.weight, before.slide.skip.weight)
    assert torch.equal(after.genes.encoders[0][0].weight, before.genes.encoders[0][0].weight)


@pytest.mark.parametrize("fused_graph", ["learned", "average"])
def test_views_and_gradients_of_pre_training(fused_graph):
    made = PretrainModule(pretrainer(fused_graph=fused_graph), learning_rate=1e-2, weight_decay=0.0)
    cohort, *nodes = made._encode(batch())
    assert len(cohort) == CASES
    views = made.model(*nodes)
    for graph in views.graphs.values():
        torch.testing.assert_close(graph, graph.T)
    if fused_graph == "average":
        torch.testing.assert_close(views.graphs["fused"], (views.graphs["slide"] + views.graphs["genes"]) / 2)
    terms = made._terms(views)
    assert {name: term.shape for name, term in terms.items()} == dict.fromkeys(("intra", "inter", "fused"), (CASES,))
    sum(term.mean() for term in terms.values()).backward()
    unused = {"learners.fused.weights.0", "learners.fused.weights.1"} if fused_graph == "average" else set()
    still = {name for name, p in made.model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name for name in still if not name.startswith("slide.branch.")} == unused


def test_pre_training_of_slides_alone_is_what_msrl_h_begins_with():
    """No gene is looked at, and learner and GCN of the slides serve in stage 2 (MSRL_H)."""
    torch.manual_seed(0)
    before = pretrainer(groups={})
    made = PretrainModule(before, learning_rate=1e-2, weight_decay=0.0)
    own = batch()
    del own["targets"]["genes:genes"]
    _, *nodes = made._encode(own)
    views = before(*nodes)
    terms = made._terms(views)
    assert (list(views.graphs), list(terms)) == (["slide"], ["intra"])
    terms["intra"].mean().backward()
    still = {name for name, p in before.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(name.startswith("slide.branch.") for name in still)
    after = network(genes=False)
    missing, unexpected = after.load_state_dict(transfer(before.state_dict()), strict=False)
    assert (unexpected, {name.split(".")[0] for name in missing}) == ([], {"head", "buffer"})
    assert torch.equal(after.learner.weights[0], before.learners["slide"].weights[0])
    assert torch.equal(after.gcn.first.weight, before.gcns["slide"].first.weight)


def shared_factor(count, seed, permuted=False):
    """Cases whose slide and genes show the same three factors, the first of which is the cohort's; or others' genes."""
    generator = torch.Generator().manual_seed(seed)
    own = batch([0] * count)
    factor = torch.randn(count, 3, generator=generator)
    for level in FEATURES:
        own["tokens"][level][..., :3] = factor[:, None]
    own["targets"]["cohort"] = (factor[:, 0] > 0).long()
    own["targets"]["genes:genes"] = torch.cat([factor, -factor, factor], dim=1)
    if permuted:
        order = torch.randperm(count, generator=generator)
        own["targets"]["genes:genes"] = own["targets"]["genes:genes"][order]
    return own


def one_by_one(whole):
    def row(part, index):
        return {k: row(v, index) for k, v in part.items()} if isinstance(part, dict) else part[index : index + 1]

    return [row(whole, index) for index in range(len(whole["weight"]))]


@pytest.mark.parametrize("permuted", [False, True])
def test_pre_training_finds_a_slides_genes_among_held_out_cases(permuted):
    made = PretrainModule(pretrainer(), learning_rate=1e-2, weight_decay=0.0)
    training = [shared_factor(64, seed, permuted) for seed in range(8)]
    held_out = one_by_one(shared_factor(60, 99))
    figures = trained(made, training, held_out, epochs=20)
    chance = 10 / 60
    assert figures["monitor_recall10"] < 2 * chance if permuted else figures["monitor_recall10"] > 0.6
    assert all(figures[f"monitor_effective_rank_{view}"] > 2 for view in ("slide", "genes", "fused"))
    assert 0.6 < figures["monitor_homophily"] < 1
    parts = [figures[f"validation_{name}"] for name in ("intra", "inter", "fused")]
    assert figures["validation_loss"] == pytest.approx(sum(parts), rel=1e-5)

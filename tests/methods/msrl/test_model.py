from __future__ import annotations

import copy
import pickle

import pytest
import torch

from histill.errors import HistillError
from histill.methods.msrl.graph import refine
from histill.methods.msrl.model import MSRL, fuse
from histill.subspaces import GENES

FEATURES = {"10x": 5, "20x": 6}
GROUPS = {"first": [0, 1, 2], "second": [2, 3]}


def network(filled: int = 40, capacity: int = 50, **options) -> MSRL:
    """In evaluation, its weights and buffer drawn at random."""
    torch.manual_seed(0)
    given = {"dim": 8, "neighbours": 4, "hidden": 12, **options}
    model = MSRL(FEATURES, 3, GROUPS, capacity, **given)
    for weight in [*model.learner.parameters(), model.gcn.first_bias, model.gcn.second_bias]:
        torch.nn.init.uniform_(weight, 0.5, 1.5)
    fill(model, range(filled))
    return model.eval()


def fill(model: MSRL, cases) -> None:
    cases = torch.tensor(list(cases), dtype=torch.int64)
    slide = torch.randn(len(cases), 8)
    values = model.fuse(None if model.genes is None else torch.randn(len(cases), 8), slide)
    model.buffer.write(cases, values, cases % 3)


def batch(size: int = 6, *, first: int = 1000, genes: bool = False, seed: int = 1) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tokens = {level: torch.randn(size, 7, width, generator=generator) for level, width in FEATURES.items()}
    mask = {level: torch.rand(size, 7, generator=generator) < 0.8 for level in FEATURES}
    given = {"tokens": tokens, "mask": mask, "case": torch.arange(first, first + size)}
    return {**given, "genes": {GENES: torch.randn(size, 4, generator=generator)}} if genes else given


def part(given, rows):
    return {k: part(v, rows) for k, v in given.items()} if isinstance(given, dict) else given[rows]


def doubled(given):
    if isinstance(given, dict):
        return {k: doubled(v) for k, v in given.items()}
    return given.double() if given.is_floating_point() else given


def logits(model: MSRL, given: dict) -> torch.Tensor:
    with torch.inference_mode():
        return model(given)["logits"]["case"]


@pytest.mark.parametrize("graph", ["learned", "cosine", "euclidean"])
@pytest.mark.parametrize("genes", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_cached_inference_is_the_dense_masked_graph(graph, genes, unit):
    model = network(graph=graph, genes=genes, unit=unit).double()
    given = doubled(batch(first=37))  # three of the six are in the buffer
    torch.testing.assert_close(logits(model, given), model.dense(given), rtol=0, atol=1e-6)


def test_measured_genes_are_read_where_they_are_given():
    model = network().double()
    given = doubled(batch(genes=True))
    assert not torch.allclose(logits(model, given), logits(model, {k: v for k, v in given.items() if k != "genes"}))
    torch.testing.assert_close(logits(model, given), model.dense(given), rtol=0, atol=1e-6)


def test_a_prediction_depends_neither_on_its_batch_nor_on_the_order():
    model, given = network(), batch(9)
    together = logits(model, given)
    alone = torch.cat([logits(model, part(given, slice(row, row + 1))) for row in range(9)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    order = torch.randperm(9)
    torch.testing.assert_close(logits(model, part(given, order)), together[order], rtol=0, atol=1e-6)


def test_equal_lenders_do_not_make_it_depend_on_its_batch():
    model = network(filled=0)
    model.buffer.write(torch.arange(40), fuse(torch.randn(4, 8), torch.randn(4, 8)).repeat(10, 1), torch.arange(40))
    given = batch(9)
    together = model.neighbours(given)["case"]
    alone = torch.cat([model.neighbours(part(given, slice(row, row + 1)))["case"] for row in range(9)])
    assert torch.equal(alone, together)


def test_evaluation_changes_nothing():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits(model, batch(first=0))
    model.neighbours(batch())
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_own_row_is_not_borrowed_from():
    model, given = network(), batch(4, first=10)
    cases = model.neighbours(given)["case"]
    assert not (cases == given["case"][:, None]).any()
    model.buffer.values[10:14] = model.nodes(given).half()  # as near as can be
    assert not (model.neighbours(given)["case"] == given["case"][:, None]).any()
    stranger = {k: v for k, v in given.items() if k != "case"}
    assert (model.neighbours(stranger)["case"][:, 0] == given["case"]).all()
    targets = {**stranger, "targets": {"case": given["case"]}}
    assert torch.equal(logits(model, targets), logits(model, given))


@pytest.mark.parametrize("links", ["buffer", "all"])
def test_in_training_own_rows_are_seen_over_no_path(links):
    model, given = network(links=links, dropout=0.0).train(), batch(4, first=10)
    before = model(given)["logits"]["case"]
    model.buffer.values[10:14] += 5.0  # an answer planted in the rows of the batch's own cases
    assert torch.equal(model(given)["logits"]["case"], before)
    model.buffer.values[14:] += 5.0
    assert not torch.allclose(model(given)["logits"]["case"], before)


def test_training_with_links_to_the_buffer_is_what_evaluation_does():
    model, given = network(dropout=0.0), batch()
    evaluated = logits(model, given)
    torch.testing.assert_close(model.train()(given)["logits"]["case"], evaluated, rtol=0, atol=1e-6)


def test_all_links_are_one_dense_graph():
    model, given = network(links="all", dropout=0.0), batch(first=37)
    nodes = model.nodes(given)
    structure = model.structure(nodes, given["case"])
    everything = torch.cat([nodes, model.buffer.values[:37].float()])
    graph = refine(model.learner(everything), 4)
    torch.testing.assert_close(structure.states, model.gcn(graph, everything)[:6])
    assert structure.edges.shape == (6, 6 + 37)
    assert torch.equal(structure.edges, (graph[:6] > 0) & structure.pairs)
    assert torch.equal(~structure.pairs, torch.eye(6, 43, dtype=torch.bool))


def test_slides_of_one_patient_are_not_linked():
    model, given = network(links="all"), batch(4)
    given["case"] = torch.tensor([5, 5, 6, 7])
    structure = model.structure(model.nodes(given), given["case"])
    assert not structure.edges[0, 1]
    assert not structure.pairs[1, 0]


def test_the_structure_is_that_of_the_lenders():
    model, given = network(), batch(first=38)
    structure = model.structure(model.nodes(given), given["case"])
    assert structure.similarity.shape == structure.edges.shape == (6, 38)
    assert (structure.edges.sum(dim=1) <= 4).all()
    lowest = structure.similarity.masked_fill(~structure.edges, 1).amin(dim=1)
    highest = structure.similarity.masked_fill(structure.edges, -1).amax(dim=1)
    assert (lowest[structure.edges.sum(dim=1) == 4] >= highest[structure.edges.sum(dim=1) == 4]).all()


@pytest.mark.parametrize("links", ["buffer", "all"])
def test_gradients_reach_learner_gcn_and_prompt(links):
    model = network(links=links).train()
    model(batch())["logits"]["case"].square().sum().backward()
    for name, value in model.named_parameters():
        if not name.startswith(("genes.", "slide.branch.")):  # the encoder's branch begins at zero
            assert value.grad is not None, name
            assert value.grad.any(), name
    assert all(value.grad is None for value in model.genes.parameters())


def test_the_target_branch_gets_no_gradient():
    model, given = network().train(), batch()
    learner, gcn = copy.deepcopy(model.learner), copy.deepcopy(model.gcn)
    nodes = model.nodes(given)
    with torch.no_grad():
        target = model.structure(nodes, given["case"], learner=learner, gcn=gcn)
    online = model.structure(nodes, given["case"])
    (online.states - target.states).square().mean().backward()
    torch.testing.assert_close(online.similarity, target.similarity)
    assert all(value.grad is None for value in [*learner.parameters(), *gcn.parameters()])


def test_what_is_cached_follows_every_change():
    model, given = network(), batch()
    seen = [logits(model, given)]

    def changed() -> bool:
        seen.append(logits(model, given))
        return not torch.allclose(seen[-1], seen[-2])

    assert not changed()
    fill(model, [3, 50, 51])
    assert changed()
    with torch.no_grad():
        model.learner.weights[0][:4] *= -2
    assert changed()
    model.load_state_dict(network(filled=30).state_dict())
    assert changed()
    torch.testing.assert_close(seen[-1], logits(network(filled=30), given))
    assert logits(model.double(), doubled(given)).dtype == torch.float64


def test_saved_and_read_it_predicts_the_same():
    model, given = network(), batch()
    other = network(filled=0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other, given), logits(model, given))
    assert "buffer.values" in model.state_dict()


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_a_used_network_can_be_copied(search):
    if search == "approximate":
        pytest.importorskip("voyager")
    model, given = network(search=search), batch()
    expected = logits(model, given)
    assert torch.equal(logits(copy.deepcopy(model), given), expected)
    assert torch.equal(logits(pickle.loads(pickle.dumps(model)), given), expected)


def test_bfloat16_finds_the_same_lenders():
    model, given = network(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nodes = model.nodes(given)
        model.nodes = lambda given: nodes
        mixed = model.neighbours(given)
    assert torch.equal(mixed["case"], model.neighbours(given)["case"])
    assert mixed["similarity"].dtype == torch.float32


@pytest.mark.parametrize("filled", [0, 1, 3])
@pytest.mark.parametrize("links", ["buffer", "all"])
def test_a_buffer_of_fewer_cases_than_neighbours(filled, links):
    model, given = network(filled=filled, links=links), batch()
    assert logits(model, given).isfinite().all()
    torch.testing.assert_close(logits(model, given), model.dense(given), rtol=0, atol=1e-5)
    report = model.neighbours(given)
    assert report["case"].shape == report["weight"].shape == (6, filled)
    assert report["similarity"].shape == report["abstention"].shape == (6,)
    assert filled or (report["abstention"] == 1).all()
    assert model.train()(given)["logits"]["case"].isfinite().all()


def test_a_buffer_of_no_rows():
    assert logits(network(filled=0, capacity=0), batch()).isfinite().all()


def test_a_patient_without_tiles_gets_a_finite_number():
    given = batch()
    given["mask"] = {level: mask & (torch.arange(6) > 0)[:, None] for level, mask in given["mask"].items()}
    assert logits(network(), given).isfinite().all()


def test_the_report_names_whom_a_case_borrowed_from():
    model, given = network().double(), doubled(batch())
    report = model.neighbours(given)
    nodes = model.nodes(given)
    cosine = model.learner(nodes) @ model.learner(model.buffer.values[:40]).T
    top = cosine.topk(4, dim=1)
    assert torch.equal(report["case"], top.indices)
    torch.testing.assert_close(report["similarity"], top.values[:, -1])
    assert torch.equal(report["case"], model(given)["neighbours"]["case"])
    graph = refine(model.learner(torch.cat([nodes, model.buffer.values[:40]])), 4, queries=6)
    lent = graph[:6, 6:].gather(1, top.indices)
    torch.testing.assert_close(report["weight"], lent / lent.sum(dim=1, keepdim=True))


def test_a_case_unlike_any_is_to_be_abstained_from():
    model = network(filled=0, capacity=60)
    likeness = torch.randn(1, 16) + 0.3 * torch.randn(60, 16)
    model.buffer.write(torch.arange(60), fuse(likeness[:, :8], likeness[:, 8:]), torch.zeros(60, dtype=torch.int64))
    own = model.buffer.values.float()
    inside, outside = own.mean(dim=0, keepdim=True), -own[:1]
    model.nodes = lambda given: torch.cat([inside, outside])
    abstention = model.neighbours({})["abstention"]
    assert abstention[0] < 0.1
    assert abstention[1] == 1


def test_approximate_search_predicts_alike():
    pytest.importorskip("voyager")
    exact, given = network(filled=600, capacity=600), batch(20)
    near = network(filled=600, capacity=600, search="approximate")
    same = (near.neighbours(given)["case"] == exact.neighbours(given)["case"]).all(dim=1)
    assert same.double().mean() >= 0.9
    assert near._lenders().index is not None


def test_unit_halves_weigh_the_same():
    genes, slide = torch.randn(5, 8), 100 * torch.randn(5, 8)
    halves = fuse(genes, slide)
    torch.testing.assert_close(halves[:, :8].norm(dim=1), torch.ones(5))
    torch.testing.assert_close(halves[:, 8:].norm(dim=1), torch.ones(5))
    assert torch.equal(fuse(genes, slide, unit=False), torch.cat([genes, slide], dim=1))
    assert fuse(None, slide).shape == (5, 8)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"links": "some"}, "some"),
        ({"graph": "random"}, "random"),
        ({"policy": "lifo"}, "lifo"),
        ({"search": "fast"}, "fast"),
        ({"search": "approximate", "graph": "euclidean"}, "cosines"),
    ],
)
def test_unknown_options_are_refused(option, said):
    with pytest.raises(HistillError, match=said):
        network(**option)

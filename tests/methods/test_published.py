"""The published networks and losses: their counts and formulas (specification §2), and bags of every kind."""

from __future__ import annotations

import math

import pytest
import torch

from histill.errors import HistillError
from histill.methods.disentangled.published import PublishedStudent, PublishedTeacher
from histill.methods.disentangled.published_losses import variance_consistency
from histill.methods.disentangled.token_map import TokenMap, grid_slots
from histill.methods.distillation import distil_logits
from histill.methods.outputs import most_confident
from histill.subspaces import SUBSPACES

FEATURES = {"10x": 7, "20x": 9}
GENES = {"tumor": 6, "microenvironment": 5}
SMALL = {"dim": 16, "heads": 2, "head_dim": 4, "side": 8}
SLOTS = 64


def teacher(**options):
    torch.manual_seed(0)
    return PublishedTeacher(FEATURES, GENES, None, 4, **SMALL, **options).eval()


def student(**options):
    torch.manual_seed(0)
    return PublishedStudent(FEATURES, 4, list(SUBSPACES), **SMALL, **options).eval()


def batch(tiles=(5, 80), pad=0, patients=2):
    generator = torch.Generator().manual_seed(1)
    tokens, mask = {}, {}
    for level, count in zip(FEATURES, tiles, strict=True):
        real = torch.randn(patients, count, FEATURES[level], generator=generator)
        tokens[level] = torch.cat([real, torch.full((patients, pad, FEATURES[level]), torch.nan)], dim=1)
        mask[level] = torch.arange(count + pad).expand(patients, -1) < count
    genes = {k: torch.randn(patients, n, generator=generator) for k, n in GENES.items()}
    return {"tokens": tokens, "mask": mask, "genes": genes}


def parameters(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters_as_published():
    features = {"10x": 1024, "20x": 1024}
    both = PublishedTeacher(features, {"tumor": 59, "microenvironment": 361}, None, 4)
    assert parameters(both) == 1_150_132
    assert [parameters(both.genes[k]) for k in SUBSPACES] == [13_268, 32_596]
    alone = PublishedStudent(features, 4, list(SUBSPACES))
    assert parameters(alone) == 487_116
    for level in features:
        assert parameters(both.level[level], both.head[level]) == 552_134
        assert parameters(alone.level[level], alone.head[level]) == 243_558


def test_every_parameter_but_the_unused_ones_is_trained():
    for model in (teacher(), student()):
        output = model.train()(batch())
        sum(value.square().sum() for value in output["logits"].values()).backward()
        without = {name for name, p in model.named_parameters() if p.grad is None}
        assert without == {name for name, _ in model.named_parameters() if "unused" in name} != set()


def test_slots_repeat_short_bags_and_thin_long_ones():
    assert grid_slots(torch.tensor([[True, False, True, True]]), 7).tolist() == [[0, 2, 3, 0, 2, 3, 0]]
    # round(i · 6 / 4), halves to even as in Python
    assert grid_slots(torch.ones(1, 6, dtype=bool), 4).tolist() == [[round(i * 6 / 4) for i in range(4)]]
    assert grid_slots(torch.zeros(1, 3, dtype=bool), 4).tolist() == [[-1] * 4]
    assert grid_slots(torch.ones(1, 4, dtype=bool), 4).tolist() == [[0, 1, 2, 3]]


def test_weights_of_slots_return_to_their_tiles():
    mask = torch.tensor([[False, True, True, True], [False] * 4])
    bag = TokenMap.of(torch.arange(8.0).view(2, 4, 1), mask, side=2)
    assert bag.tokens[..., 0].tolist() == [[1, 2, 3, 1], [0] * 4]
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25] * 4])
    torch.testing.assert_close(bag.to_tiles(weights), torch.tensor([[0, 0.5, 0.2, 0.3], [0.0] * 4]))


@pytest.mark.parametrize("network", [teacher, student])
def test_outputs(network):
    output = network()(batch())
    for level, tiles in zip(FEATURES, (5, 80), strict=True):
        assert output["logits"][level].shape == (2, 4)
        for k in SUBSPACES:
            assert output["features"][k][level].shape == (2, 16)
            attention = output["attention"][k][level]
            assert attention.shape == (2, tiles)
            assert attention.min() >= 0
            torch.testing.assert_close(attention.sum(dim=1), torch.ones(2))
        for maps in output["maps"].values():
            assert maps[level].shape == (2, 2, SLOTS, 4)


def test_the_teachers_attention_is_that_of_the_published_figures():
    output = teacher()(batch())
    slots = output["maps"]["tumor"]["10x"].max(dim=1).values.mean(dim=-1)
    tiles = torch.stack([slots[:, tile::5].sum(dim=1) for tile in range(5)], dim=1)  # 5 tiles, repeated in turn
    torch.testing.assert_close(output["attention"]["tumor"]["10x"], tiles / tiles.sum(dim=1, keepdim=True))


def test_the_students_features_are_means_of_clusters():
    model, one = student(), batch()
    output = model(one)
    for level, tiles in zip(FEATURES, (5, 80), strict=True):
        assignment = output["assignment"][level]
        assert assignment.shape == (2, tiles, 2)
        seen = set(grid_slots(one["mask"][level], SLOTS)[0].tolist())
        assert assignment.sum(dim=-1)[0].tolist() == [float(tile in seen) for tile in range(tiles)]
        assert output["kept"][level].tolist() == [[1, 1]] * 2
        joined = torch.cat([output["features"][k][level] for k in SUBSPACES], dim=-1)
        torch.testing.assert_close(output["logits"][level], model.head[level](joined))


@pytest.mark.parametrize("network", [teacher, student])
def test_padding_never_changes_outputs(network):
    model = network()
    plain, padded = model(batch()), model(batch(pad=6))
    for level in FEATURES:
        torch.testing.assert_close(plain["logits"][level], padded["logits"][level])
        for k in SUBSPACES:
            own, wide = plain["attention"][k][level], padded["attention"][k][level]
            torch.testing.assert_close(own, wide[:, :-6])
            assert not wide[:, -6:].any()


@pytest.mark.parametrize("network", [teacher, student])
@pytest.mark.parametrize("tiles", [0, 5])
def test_an_empty_bag_is_finite(network, tiles):
    one = batch(tiles=(tiles, 1))
    one["mask"]["10x"][0] = False
    model = network().train()
    output = model(one)
    sum(value.sum() for value in output["logits"].values()).backward()
    assert all(value.isfinite().all() for value in output["logits"].values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert output["attention"]["tumor"]["10x"].shape == (2, tiles)
    assert not output["attention"]["tumor"]["10x"][0].any()


def test_an_empty_bag_keeps_no_token():
    one = batch()
    one["mask"]["10x"][0] = False
    output = student()(one)
    assert output["kept"]["10x"].tolist() == [[0, 0], [1, 1]]
    assert not output["features"]["tumor"]["10x"][0].any()


@pytest.mark.parametrize("network", [teacher, student])
def test_a_missing_magnification_is_left_out(network):
    one = batch()
    for key in ("tokens", "mask"):
        del one[key]["20x"]
    model = network()
    torch.testing.assert_close(model(one)["logits"], {"10x": model(batch())["logits"]["10x"]})


def test_the_student_is_deterministic_in_evaluation():
    model = student()
    torch.testing.assert_close(model(batch())["logits"], model(batch())["logits"], rtol=0, atol=0)


@pytest.mark.parametrize("network", [teacher, student])
def test_mixed_precision_is_close(network):
    model, one = network().train(), batch()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.AlphaDropout | torch.nn.MultiheadAttention):
            module.eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(one)
        loss = sum(value.float().square().sum() for value in output["logits"].values())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    exact = model.eval()(one)
    for level in FEATURES:
        torch.testing.assert_close(output["logits"][level].float(), exact["logits"][level], atol=0.1, rtol=0)


def test_one_subspace_and_imported_slide_vectors():
    model = PublishedTeacher({"slide": 3}, {"joint": 4}, None, 2, **SMALL).eval()
    tokens, mask = {"slide": torch.ones(1, 1, 3)}, {"slide": torch.ones(1, 1, dtype=bool)}
    output = model({"tokens": tokens, "mask": mask, "genes": {"joint": torch.ones(1, 4)}})
    assert output["attention"]["joint"]["slide"].item() == pytest.approx(1)
    assert output["logits"]["slide"].shape == (1, 2)


def test_shared_parameters_are_what_both_subspaces_pass_through():
    model = teacher()
    output = model(batch())
    for k in SUBSPACES:
        loss = sum(value.sum() for value in output["features"][k].values())
        gradients = torch.autograd.grad(loss, model.shared_parameters(), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(HistillError, match="width of 18"):
        PublishedStudent(FEATURES, 4, list(SUBSPACES), dim=18, heads=4, side=8)


def test_variance_consistency_by_hand():
    # S = [[1, 2], [0, 3]] · [[1, 0], [0, 1]]: rows over their norms 1/√5 and 3/3 on the diagonal.
    first, second = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.eye(2)
    expected = 1e4 * (1 - 5**-0.5) ** 2 / 2
    assert variance_consistency(first, second).item() == pytest.approx(expected, rel=1e-5)
    assert variance_consistency(first.view(2, 2, 1), second.view(2, 1, 2)).item() == pytest.approx(expected, rel=1e-5)


def test_variance_consistency_is_minimal_for_uniform_maps_and_0_for_one_patient():
    uniform = torch.full((4, 2, 6, 3), 1 / 3)
    assert variance_consistency(uniform, uniform).item() == pytest.approx(0, abs=1e-6)
    assert variance_consistency(uniform[:1], uniform[:1]) == 0


def test_most_confident_magnification_wins():
    logits = {
        "10x": torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0], [5.0, 0.0]]),
        "20x": torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 2.0], [0.0, 5.0]]),
    }
    present = {"10x": torch.tensor([True, True, True, False]), "20x": torch.tensor([True, True, True, False])}
    chosen = torch.stack([logits["10x"][0], logits["20x"][1], logits["20x"][2]])  # a tie goes to 20x
    predicted = most_confident(logits, present, survival=False)
    torch.testing.assert_close(predicted[:3], chosen.softmax(dim=-1))
    assert predicted[3].tolist() == [0, 0]
    # Hazards are chosen by softmax as well: equal logits are the least confident, however high.
    hazards = most_confident(
        {"10x": torch.tensor([[9.0, 9.0]]), "20x": torch.tensor([[0.0, 1.0]])},
        {"10x": torch.tensor([True]), "20x": torch.tensor([True])},
        survival=True,
    )
    torch.testing.assert_close(hazards, torch.tensor([[0.0, 1.0]]).sigmoid())


def test_a_missing_magnification_is_never_the_most_confident():
    logits = {"10x": torch.tensor([[9.0, 0.0]]), "20x": torch.tensor([[0.0, 0.1]])}
    present = {"10x": torch.tensor([False]), "20x": torch.tensor([True])}
    torch.testing.assert_close(most_confident(logits, present, survival=True), logits["20x"].sigmoid())


def test_published_distillation_of_logits_by_hand():
    # T = 2: softmax([2 log 3, 0] / 2) = [3/4, 1/4] against [1/2, 1/2], for hazards too.
    student_logits, teacher_logits = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distil_logits(student_logits, teacher_logits, temperature=2.0, survival=False).item() == pytest.approx(
        expected
    )

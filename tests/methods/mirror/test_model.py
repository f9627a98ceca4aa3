from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from histill.methods.mirror.model import MIRROR
from histill.methods.mirror.retention import RNARetention, SlideRetention, hide
from histill.methods.mirror.rna import HeadAttention, RNABlock
from histill.methods.mirror.style import StyleClustering
from histill.methods.transmil import Encoded

PUBLISHED = {"positions": "order", "mask_padding": False, "temperature": None, "normalise": "before"}


def network(**options) -> MIRROR:
    torch.manual_seed(0)
    sizes = {"dim": 24, "heads": 4, "landmarks": 4, "rna_heads": 4, "latent": 8, "hidden": (16, 12), "prototypes": 20}
    return MIRROR({"20x": 6}, 30, **{**sizes, **options})


def batch(*counts: int) -> dict:
    """Bags of so many tiles in rows of four."""
    length = max(1, *counts)
    place = torch.arange(length)
    cells = torch.stack([torch.zeros_like(place), place % 4, place // 4], dim=1)
    return {
        "tokens": {"20x": torch.randn(len(counts), length, 6)},
        "cells": {"20x": cells.expand(len(counts), -1, -1)},
        "mask": {"20x": place < torch.tensor(counts)[:, None]},
        "genes": {"genes": torch.randn(len(counts), 30)},
    }


def parameters(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def test_published_sizes():
    """§2: 768 wide, 2,048 tokens, 10,234 transcripts, 3,000 prototypes."""
    with torch.device("meta"):
        model = MIRROR(
            {"20x": 768},
            10234,
            dim=768,
            heads=8,
            landmarks=384,
            tokens=2048,
            rna_heads=12,
            prototypes=3000,
            **PUBLISHED,
        )
    assert parameters(model.slide) == 5_382_672
    assert parameters(model.rna) == 31_082_496
    assert parameters(model.slide, model.align_slide, model.retain_slide) == 11_092_248
    assert parameters(model.rna, model.align_rna, model.retain_rna) == 39_944_449
    assert model.style.prototypes.numel() == 2_304_000
    assert parameters(model.style) - model.style.prototypes.numel() == 689_920
    assert model.log_scale.numel() == 1
    assert parameters(model) == 54_030_618
    assert parameters(model.slide, model.rna) + 1536 * 2 + 2 == 36_468_242  # with the classifier's head


@pytest.mark.parametrize("options", [{}, {**PUBLISHED, "tokens": 12}])
def test_every_parameter_learns_from_the_outputs(options):
    model = network(**options)
    output = model(batch(12, 9))
    sum(
        sum(part.square().sum() for part in (output["aligned"][m], output["told"][m], *output["style"][m]))
        for m in ("slide", "rna")
    ).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"log_scale"}


def test_what_is_transferred_lies_below_slide_and_rna():
    model = network()
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"slide", "rna", "align_slide", "align_rna", "retain_slide", "retain_rna", "style", "log_scale"}


def test_bags_do_not_depend_on_each_other_at_evaluation():
    model, both = network().eval(), batch(11, 5)
    output = model(both)
    cls, tokens, mask = model.encode_slide(both)
    assert tokens.shape == (2, 11, 24)
    assert torch.equal(mask, both["mask"]["20x"])
    alone = {part: {"20x": both[part]["20x"][1:, :5]} for part in ("tokens", "cells", "mask")}
    alone = model({**alone, "genes": {"genes": both["genes"]["genes"][1:]}})
    torch.testing.assert_close(alone["encoded"]["slide"][0], cls[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone["told"]["slide"][0], output["told"]["slide"][1, :5], atol=1e-5, rtol=1e-5)
    assert torch.equal(alone["hidden"]["slide"][0], output["hidden"]["slide"][1, :5])
    for modality in ("slide", "rna"):
        for mine, own in zip(output["style"][modality], alone["style"][modality], strict=True):
            torch.testing.assert_close(mine[1:], own, atol=1e-5, rtol=1e-5)


def test_places_of_tiles_not_their_order_are_what_the_decoder_reads():
    model, own = network().eval(), batch(12)
    order = torch.randperm(12)
    bag = Encoded(*model._encode(own))
    moved = Encoded(bag.cls, bag.tokens[:, order], bag.mask, bag.cells[:, order])
    model.retain_slide.ratio = 1.0  # which are masked would go with the order
    torch.testing.assert_close(model.retain_slide(bag)[0][:, order], model.retain_slide(moved)[0])


def test_masks_have_the_published_sizes():
    for count, masked in ((2048, 1536), (768, 576)):
        hidden = hide(torch.ones(3, count, dtype=torch.bool), 0.75, True)
        assert hidden.sum(dim=1).tolist() == [masked] * 3
        assert not torch.equal(hidden[0], hidden[1])


def test_masks_are_shares_of_a_bags_own_tokens():
    mask = torch.arange(20) < torch.tensor([[20], [8], [1], [0]])
    hidden = hide(mask, 0.75, True)
    assert hidden.sum(dim=1).tolist() == [15, 6, 1, 0]
    assert not (hidden & ~mask).any()
    assert torch.equal(hide(mask, 0.75, False), hide(mask, 0.75, False))


@pytest.mark.parametrize(("positions", "tokens", "table"), [("order", 9, True), ("order", None, False)])
def test_only_a_fixed_number_of_tokens_has_a_table(positions, tokens, table):
    sizes = {"heads": 2, "landmarks": 4, "dropout": 0.0, "mask_padding": True, "mask": 0.75}
    retain = SlideRetention(8, positions=positions, tokens=tokens, **sizes)
    assert (retain.table is not None) == table
    assert retain.convolution is None
    if table:
        assert retain.table.shape == (1, 10, 8)


def test_masked_tokens_and_coordinates_are_not_seen():
    torch.manual_seed(0)
    tokens, mask = torch.randn(1, 8, 8), torch.ones(1, 8, dtype=torch.bool)
    bag = Encoded(torch.randn(1, 8), tokens, mask, torch.full((1, 8, 3), -1))
    sizes = {"heads": 2, "landmarks": 8, "dropout": 0.0, "mask_padding": True, "mask": 0.75}
    retain = SlideRetention(8, positions="coordinates", tokens=None, **sizes).eval()
    told, hidden = retain(bag)
    other = bag._replace(tokens=torch.where(hidden[..., None], torch.randn(1, 8, 8), tokens))
    assert torch.equal(retain(other)[0], told)
    visible = bag._replace(tokens=torch.where(hidden[..., None], tokens, torch.randn(1, 8, 8)))
    assert not torch.allclose(retain(visible)[0], told)

    rna = RNARetention(8, heads=2, mlp_ratio=2.0, dropout=0.0, mask=0.75).eval()
    x = torch.randn(3, 8)
    _, hidden = rna(x)
    assert hidden.sum(dim=1).tolist() == [6] * 3
    # The linear layer before the mask mixes coordinates; what is masked is what it gives.
    rna.embed.weight.data, rna.embed.bias.data = torch.eye(8), torch.zeros(8)
    assert torch.equal(rna(torch.where(hidden, torch.randn(3, 8), x))[0], rna(x)[0])


def test_heads_of_a_vector_attend_to_each_other():
    torch.manual_seed(0)
    layer, x = HeadAttention(12, 3, 0.0), torch.randn(2, 12)
    query, key, value = layer.qkv(x).view(2, 3, 3, 4).unbind(1)
    attended = torch.stack([torch.softmax(q @ k.T / 2, dim=-1) @ v for q, k, v in zip(query, key, value, strict=True)])
    torch.testing.assert_close(layer(x), layer.project(attended.transpose(1, 2).reshape(2, 12)))


def test_rna_decoder_starts_smaller():
    model = network(dim=96)
    plain = RNABlock(96, 4, mlp_ratio=4.0, dropout=0.0)
    for own, other in (
        (model.retain_rna.block.attention.project, plain.attention.project),
        (model.retain_rna.block.mlp[3], plain.mlp[3]),
    ):
        ratio = own.weight.std() / other.weight.std()
        assert ratio.item() == pytest.approx(1 / math.sqrt(2), rel=0.05)


@pytest.mark.parametrize("normalise", ["after", "before"])
def test_alignment_is_of_cosines_only_after_the_head(normalise):
    model = network(normalise=normalise)
    x, y = torch.randn(3, 24), torch.randn(3, 24)
    slide, rna = model.align(x, y)
    if normalise == "after":
        torch.testing.assert_close(slide.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(rna, F.normalize(model.align_rna(y), dim=-1))
    else:
        torch.testing.assert_close(slide, model.align_slide(F.normalize(x, dim=-1)))
        torch.testing.assert_close(model.align(5 * x, y)[0], slide)


def test_scale_and_prototypes_stay_in_bounds():
    model = network()
    assert model.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
        model.style.prototypes.mul_(3).add_(0.1)
    model.constrain()
    assert model.scale.item() == pytest.approx(100)
    torch.testing.assert_close(model.style.prototypes.norm(dim=1), torch.ones(20))
    with torch.no_grad():
        model.log_scale.fill_(-1.0)
    model.constrain()
    assert model.scale.item() == 1


def test_styles_are_sampled_in_training_alone():
    torch.manual_seed(0)
    style = StyleClustering(8, hidden=(16, 8), latent=4, prototypes=12, temperature=0.1)
    x = torch.randn(3, 8)
    assert not torch.equal(style(x).assignment, style(x).assignment)
    style.eval()
    found = style(x)
    assert torch.equal(found.assignment, style(x).assignment)
    torch.testing.assert_close(found.assignment.exp().sum(dim=1), torch.ones(3))
    cosines = F.normalize(style.decode(found.mean), dim=-1) @ style.prototypes.T
    torch.testing.assert_close(found.assignment, torch.log_softmax(cosines / 0.1, dim=-1))
    style.temperature = None
    torch.testing.assert_close(
        style(x).assignment, torch.log_softmax(style.decode(found.mean) @ style.prototypes.T, -1)
    )

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from histill.errors import HistillError
from histill.methods.msrl.encoders import SNN, GeneEncoder, Inductor, SlideEncoder

FEATURES = {"10x": 5, "20x": 7}


def encoder(pooling="mean", dim=6, features=FEATURES):
    torch.manual_seed(0)
    made = SlideEncoder(features, dim, pooling=pooling).eval()
    nn.init.normal_(made.branch[-1].weight)  # the branch begins at zero: give it something to say
    return made


def bag(pad=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens, mask = {}, {}
    for (level, width), count in zip(FEATURES.items(), (3, 4), strict=True):
        real = torch.randn(2, count, width, generator=generator)
        tokens[level] = torch.cat([real, torch.full((2, pad, width), 1e3)], dim=1)
        mask[level] = torch.arange(count + pad).expand(2, -1) < count
    return tokens, mask


def test_snn_keeps_the_scale_of_standard_inputs():
    torch.manual_seed(0)
    layers = SNN(2000, 400, 200, dropout=0.25).eval()
    assert layers[0].weight.std().item() == pytest.approx(2000**-0.5, rel=0.02)
    assert layers[3].weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert not layers[0].bias.any()
    assert 0.5 < layers(torch.randn(256, 2000)).std().item() < 1.2
    assert [layer.p for layer in layers if isinstance(layer, nn.AlphaDropout)] == [0.25, 0.25]


def test_published_widths_of_the_gene_encoder():
    genes = GeneEncoder({str(index): list(range(index, 40)) for index in range(6)}, 768, dropout=0.25)
    assert [(snn[0].in_features, snn[0].out_features, snn[3].out_features) for snn in genes.encoders] == [
        (40 - index, 256, 128) for index in range(6)
    ]


def test_width_is_shared_out_over_groups_of_any_size():
    genes = GeneEncoder({"a": [0], "none": [], "b": [1, 2, 3, 0], "c": [4]}, 11, dropout=0.0)
    assert [snn[3].out_features for snn in genes.encoders] == [4, 4, 3]
    assert genes(torch.randn(2, 5)).shape == (2, 11)


def test_a_group_hears_its_own_genes_only():
    genes = GeneEncoder({"a": [3, 0], "b": [1, 2]}, 8, dropout=0.0)
    expression = torch.randn(1, 4, requires_grad=True)
    (heard,) = torch.autograd.grad(genes(expression)[:, :4].sum(), expression)
    assert (heard[0] != 0).tolist() == [True, False, False, True]


def test_groups_that_cannot_share_the_width_are_refused():
    with pytest.raises(HistillError, match="2 gene groups"):
        GeneEncoder({"a": [0], "b": [1]}, 1, dropout=0.0)
    with pytest.raises(HistillError, match="0 gene groups"):
        GeneEncoder({"a": []}, 8, dropout=0.0)


def test_positions_of_genes_are_no_weights():
    assert "positions" not in GeneEncoder({"a": [0]}, 2, dropout=0.0).state_dict()


def test_inductor_makes_a_vector_of_the_genes_width():
    assert Inductor(6, dropout=0.25)(torch.randn(3, 6)).shape == (3, 6)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_padding_and_order_of_tiles_change_nothing(pooling):
    made = encoder(pooling)
    plain = made(*bag())
    torch.testing.assert_close(made(*bag(pad=5)), plain)
    tokens, mask = bag(pad=5)
    turned = ({k: x.flip(1) for k, x in part.items()} for part in (tokens, mask))
    torch.testing.assert_close(made(*turned), plain)


def test_mean_pooling_is_the_mean():
    tokens, mask = bag()
    expected = torch.cat([tokens[level].mean(dim=1) for level in FEATURES], dim=1)
    torch.testing.assert_close(encoder().pool(tokens, mask), expected)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_one_token_is_pooled_to_itself(pooling):
    vector = torch.randn(2, 1, 9)
    made = encoder(pooling, features={"slide": 9})
    torch.testing.assert_close(
        made.pool({"slide": vector}, {"slide": torch.ones(2, 1, dtype=torch.bool)}), vector[:, 0]
    )


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_level_without_tiles_is_zero_and_one_that_is_not_there_too(pooling):
    tokens, mask = bag()
    made = encoder(pooling)
    mask["20x"] = torch.zeros_like(mask["20x"])
    pooled = made.pool(tokens, mask)
    assert not pooled[:, 5:].any()
    assert pooled[:, :5].all()
    torch.testing.assert_close(made.pool({"10x": tokens["10x"]}, {"10x": mask["10x"]}), pooled)
    assert made(tokens, {level: torch.zeros_like(own) for level, own in mask.items()}).isfinite().all()


def test_the_projector_begins_as_a_linear_map():
    made = SlideEncoder(FEATURES, 6).eval()
    pooled = torch.randn(3, 12)
    torch.testing.assert_close(made.project(pooled), made.skip(pooled))


def test_attention_is_learned_from_tiles():
    made = encoder("attention")
    made(*bag()).square().sum().backward()
    assert all(math.isfinite(p.grad.abs().sum().item()) for p in made.parameters())
    assert made.scores["20x"][1].score.weight.grad.abs().sum() > 0


def test_unknown_pooling_is_refused():
    with pytest.raises(HistillError, match="pooling 'max'"):
        SlideEncoder(FEATURES, 6, pooling="max")

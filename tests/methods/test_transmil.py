from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from histill.methods.transmil import (
    LEAST_CELLS,
    PositionalConvolution,
    SlideEncoder,
    TransMIL,
    dense_cells,
    draw,
    in_squares,
)

FEATURES, DIM = 6, 16


def encoder(**options) -> SlideEncoder:
    torch.manual_seed(0)
    return SlideEncoder(FEATURES, DIM, **{"heads": 4, "landmarks": 8, **options}).eval()


def grid(width: int, height: int, slide: int = 0) -> torch.Tensor:
    """Cells [width · height, 3] of a full rectangle away from the corner of its slide."""
    place = torch.arange(width * height)
    return torch.stack([torch.full_like(place, slide), 5 + place % width, 9 + place // width], dim=1)


def bag(*cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    where = torch.cat(cells)[None]
    return torch.randn(1, where.shape[1], FEATURES), where, torch.ones(where.shape[:2], dtype=torch.bool)


def beside(first, second):
    """Two bags as one batch, padded with what must not matter."""
    length = max(first[0].shape[1], second[0].shape[1])
    pads = ((0, 0, 0), (7.0, 3, False))
    return [
        torch.cat([F.pad(x, (*(0, 0) * (x.dim() - 2), 0, length - x.shape[1]), value=value) for x in pair])
        for pair, value in zip(zip(first, second, strict=True), pads[1], strict=True)
    ]


def test_convolution_is_that_of_the_slides_image():
    torch.manual_seed(0)
    layer = PositionalConvolution(4)
    image = torch.randn(1, 4, 5, 9)
    tokens, cells = image.flatten(2).transpose(1, 2), grid(9, 5)[None]
    expected = (image + sum(conv(image) for conv in layer.layers)).flatten(2).transpose(1, 2)
    found = layer(tokens, cells, torch.ones(1, 45, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_slides_of_a_patient_do_not_touch():
    torch.manual_seed(0)
    layer, tokens = PositionalConvolution(4), torch.randn(1, 12, 4)
    cells = torch.cat([grid(3, 2, slide=0), grid(3, 2, slide=1)])[None]
    mask = torch.ones(1, 12, dtype=torch.bool)
    before = layer(tokens, cells, mask)
    other = torch.cat([tokens[:, :6], torch.randn(1, 6, 4)], dim=1)
    torch.testing.assert_close(layer(other, cells, mask)[:, :6], before[:, :6])


def test_tokens_without_a_place_pass_unchanged():
    torch.manual_seed(0)
    layer, tokens = PositionalConvolution(4), torch.randn(1, 5, 4)
    cells = torch.cat([grid(2, 2), torch.full((1, 3), -1)])[None]
    mask = torch.ones(1, 5, dtype=torch.bool)
    found = layer(tokens, cells, mask)
    assert torch.equal(found[:, 4], tokens[:, 4])
    assert not torch.allclose(found[:, :4], tokens[:, :4])
    assert torch.equal(layer(tokens, torch.full_like(cells, -1), mask), tokens)


def test_far_apart_tiles_share_coarse_cells_within_the_limit():
    cells = torch.tensor([[[0, 0, 0], [0, 1, 0], [0, 999, 999], [1, 0, 0]]])
    at, shapes = dense_cells(cells, torch.ones(1, 4, dtype=torch.bool))
    assert shapes == [(1, 1, 1), (1, 63, 63)]  # the second slide's single cell comes first
    assert LEAST_CELLS >= 63 * 63
    assert at.tolist() == [1, 1, 63 * 63, 0]  # a stride of 16 puts neighbours together


def test_a_long_biopsy_is_not_coarsened():
    cells = torch.stack([grid(1000, 4), grid(1000, 4) + torch.tensor([0, 7, 7])])
    at, shapes = dense_cells(cells, torch.ones(2, 4000, dtype=torch.bool))
    assert shapes == [(2, 4, 1000)]
    assert at.tolist() == list(range(8000))


def test_coarse_cells_are_means():
    torch.manual_seed(0)
    layer = PositionalConvolution(4)
    cells = torch.tensor([[[0, 0, 0], [0, 1, 0], [0, 9999, 0], [0, 9999, 9999]]])
    tokens, mask = torch.randn(1, 4, 4), torch.ones(1, 4, dtype=torch.bool)
    own = layer(tokens, cells, mask) - tokens
    torch.testing.assert_close(own[:, 0], own[:, 1])
    middle = tokens[:, :2].mean(dim=1, keepdim=True).expand(-1, 2, -1)
    other = layer(torch.cat([middle, tokens[:, 2:]], dim=1), cells, mask)
    torch.testing.assert_close(other[:, :2] - middle, own[:, :2])


def test_permuted_tokens_with_their_cells_change_nothing():
    tokens, cells, mask = bag(grid(7, 6), grid(4, 3, slide=1))
    encode, order = encoder(), torch.randperm(54)
    there, moved = encode(tokens, cells, mask), encode(tokens[:, order], cells[:, order], mask)
    assert torch.equal(there.cls, moved.cls)
    assert torch.equal(there.tokens[:, order], moved.tokens)


def test_places_of_tiles_matter():
    tokens, cells, mask = bag(grid(7, 6))
    encode = encoder()
    assert not torch.allclose(encode(tokens, cells, mask).cls, encode(tokens, cells.flip(1), mask).cls, atol=1e-3)


@pytest.mark.parametrize("positions", ["coordinates", "order"])
@pytest.mark.parametrize("tokens", [None, 20])
def test_a_bag_depends_on_neither_padding_nor_neighbours(positions, tokens):
    encode = encoder(positions=positions, tokens=tokens)
    first, second = bag(grid(5, 3)), bag(grid(9, 6))
    both = encode(*beside(first, second))
    for index, own in enumerate((first, second)):
        alone, count = encode(*own), tokens or own[0].shape[1]
        torch.testing.assert_close(both.cls[index], alone.cls[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(both.tokens[index, :count], alone.tokens[0], atol=1e-5, rtol=1e-5)
        assert not both.tokens[index, count:].any()


@pytest.mark.parametrize("options", [{}, {"positions": "order", "tokens": 12, "mask_padding": False}])
def test_bags_of_no_tile_or_one_are_finite(options):
    encode = encoder(**options)
    tokens, cells = torch.randn(2, 1, FEATURES), torch.full((2, 1, 3), -1)
    found = encode(tokens, cells, torch.tensor([[False], [True]]))
    assert found.cls.isfinite().all()
    assert found.tokens.isfinite().all()
    assert not found.tokens[0].any()
    found.cls.sum().backward()
    assert all(p.grad.isfinite().all() for p in encode.parameters() if p.grad is not None)


def test_published_square_repeats_the_first_tiles():
    mask = torch.ones(1, 2048, dtype=torch.bool)
    rows, places, there, back = in_squares(torch.zeros(1, 2048, 3), mask)
    assert rows.shape == (1, 2116)
    assert there.all()
    assert rows[0].tolist() == [*range(2048), *range(68)]
    assert places[0, [0, 45, 46, 2115]].tolist() == [[0, 0, 0], [0, 45, 0], [0, 0, 1], [0, 45, 45]]
    assert back[0].tolist() == list(range(2048))


def test_published_encoder_by_its_layers():
    """Square, convolution on it as an image, and the repeated tiles left away."""
    encode = encoder(positions="order", mask_padding=False)
    tokens = torch.randn(2, 14, FEATURES)
    mask = torch.ones(2, 14, dtype=torch.bool)
    x = encode.project(tokens)
    x = torch.cat([encode.cls.expand(2, -1, -1), x, x[:, :2]], dim=1)
    x = encode.first(x, None)
    image = x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    image = image + sum(conv(image) for conv in encode.convolution.layers)
    x = torch.cat([x[:, :1], image.flatten(2).transpose(1, 2)], dim=1)
    x = encode.norm(encode.second(x, None))
    found = encode(tokens, torch.full((2, 14, 3), -1), mask)
    torch.testing.assert_close(found.cls, x[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.tokens, x[:, 1:15], atol=1e-5, rtol=1e-5)


def test_tiles_are_drawn_with_replacement_only_where_there_are_fewer():
    mask = torch.arange(40) < torch.tensor([[40], [6]])
    torch.manual_seed(0)
    rows = draw(mask, 12, True)
    assert rows.shape == (2, 12)
    assert len(set(rows[0].tolist())) == 12
    assert rows[1].max() < 6
    assert 1 < len(set(rows[1].tolist())) <= 6
    assert not torch.equal(rows, draw(mask, 12, True))
    assert torch.equal(draw(mask, 12, False), draw(mask, 12, False))


def test_the_encoder_draws_anew_in_training_and_the_same_at_evaluation():
    tokens, cells, mask = bag(grid(8, 8))
    encode = encoder(tokens=10)
    assert encode(tokens, cells, mask).tokens.shape == (1, 10, DIM)
    assert torch.equal(encode(tokens, cells, mask).cls, encode(tokens, cells, mask).cls)
    encode.train()
    assert not torch.equal(encode(tokens, cells, mask).cls, encode(tokens, cells, mask).cls)


def test_transmil_gives_logits_at_every_level():
    torch.manual_seed(0)
    network = TransMIL({"10x": FEATURES, "20x": 4}, 3, dim=DIM, heads=4, landmarks=8)
    cells = grid(3, 3)[None].expand(2, -1, -1)
    mask = torch.tensor([[True] * 9, [False] * 9])
    batch = {
        "tokens": {"10x": torch.randn(2, 9, FEATURES), "20x": torch.randn(2, 9, 4)},
        "cells": {"10x": cells, "20x": cells},
        "mask": {"10x": mask, "20x": ~mask},
    }
    logits = network(batch)["logits"]
    assert {level: value.shape for level, value in logits.items()} == {"10x": (2, 3), "20x": (2, 3)}
    assert all(value.isfinite().all() for value in logits.values())
    sum(value.square().sum() for value in logits.values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_slides_of_any_shapes_give_what_each_gives_alone():
    torch.manual_seed(0)
    layer = PositionalConvolution(4)
    parts = [grid(3, 2), grid(5, 4), grid(3, 2) + torch.tensor([0, 2, 1]), grid(1, 7)]
    cells = torch.cat([part + torch.tensor([slide, 0, 0]) for slide, part in enumerate(parts)])[None]
    tokens = torch.randn(1, cells.shape[1], 4)
    whole, start = layer(tokens, cells, torch.ones(cells.shape[:2], dtype=torch.bool)), 0
    for part in parts:
        own = tokens[:, start : start + len(part)]
        alone = layer(own, part[None], torch.ones(1, len(part), dtype=torch.bool))
        torch.testing.assert_close(whole[:, start : start + len(part)], alone)
        start += len(part)


def test_transmil_learns_from_places():
    """Bags of the same tiles: in class 1 the marked two are neighbours."""
    torch.manual_seed(0)
    network = TransMIL({"20x": 2}, 2, dim=8, heads=2, landmarks=40)
    count, label = 24, torch.arange(24) % 2
    tokens = torch.zeros(count, 36, 2)
    for own, near in zip(tokens, label.bool().tolist(), strict=True):
        start = int(torch.randint(0, 4, ())) + 6 * int(torch.randint(0, 3, ()))
        own[[start, start + (1 if near else 20)], 0] = 3.0
    batch = {
        "tokens": {"20x": tokens},
        "cells": {"20x": grid(6, 6).expand(count, -1, -1)},
        "mask": {"20x": torch.ones(count, 36, dtype=torch.bool)},
    }
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(network(batch)["logits"]["20x"], label).backward()
        optimizer.step()
    assert (network(batch)["logits"]["20x"].argmax(dim=-1) == label).float().mean() > 0.95

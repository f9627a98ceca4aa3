from __future__ import annotations

import torch

from histill.methods.context import LocalContext, block_means


def test_blocks_are_averaged_by_hand():
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    cells = torch.tensor([[[0, 0, 0], [0, 1, 1], [0, 2, 0], [1, 0, 0], [0, 3, 1], [-1, -1, -1]]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    means = block_means(tokens, cells, mask, 2)
    # Tiles 0 and 1 are a block, 2 and 4 one, 3 lies on another slide, 5 is nobody knows where.
    assert means[0, :, 0].tolist() == [0.5, 0.5, 3.0, 3.0, 3.0, 5.0]


def test_patients_and_padding_stay_apart():
    tokens = torch.randn(2, 4, 3)
    cells = torch.zeros(2, 4, 3, dtype=torch.int64)
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    means = block_means(tokens, cells, mask, 4)
    torch.testing.assert_close(means[0, 0], tokens[0, :3].mean(dim=0))
    torch.testing.assert_close(means[1, 0], tokens[1].mean(dim=0))


def test_the_context_begins_as_the_identity():
    tokens = torch.randn(1, 5, 8)
    layer = LocalContext(8, 4)
    assert torch.equal(
        layer(tokens, torch.zeros(1, 5, 3, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool)), tokens
    )

from __future__ import annotations

import torch

from histill.methods.disentangled.aggregation import MeanAggregation, PrototypeAggregation


def blobs(small, large, gap=5.0):
    tiles = torch.zeros(1, small + large, 8)
    tiles[0, :small, 0] = gap
    tiles[0, small:, 1] = gap
    return tiles, torch.ones(1, small + large, dtype=torch.bool)


def aggregation(count=1):
    torch.manual_seed(0)
    pool = PrototypeAggregation(8, 2, count)
    with torch.no_grad():
        pool.prototypes.copy_(8 * torch.eye(8)[:2])
    return pool


def test_blobs_are_assigned_by_prototype_not_by_density():
    for small, large in ((3, 40), (40, 3)):
        tiles, mask = blobs(small, large)
        merged = aggregation()(tiles, mask)
        assert (merged.assignment[0, :small, 0] > 0.99).all()
        assert (merged.assignment[0, small:, 1] > 0.99).all()
        torch.testing.assert_close(merged.weights.sum(dim=-1), torch.ones(1, 2))
        assert merged.tokens[0, 0, 0].argmax() == 0
        assert merged.tokens[0, 1, 0].argmax() == 1


def test_shares_of_the_merged_tokens_sum_to_one():
    torch.manual_seed(1)
    tiles, mask = torch.randn(2, 30, 8), torch.ones(2, 30, dtype=torch.bool)
    mask[1, 20:] = False
    merged = aggregation(count=4)(tiles, mask)
    torch.testing.assert_close(merged.share.sum(dim=-1), torch.ones(2, 2))
    assert (merged.kept == 4).all()
    # Merging loses nothing of the mean.
    plain = aggregation()(tiles, mask)
    torch.testing.assert_close((merged.share[..., None] * merged.tokens).sum(dim=2), plain.tokens[:, :, 0])


def test_padding_and_empty_bags():
    torch.manual_seed(1)
    tiles, mask = torch.randn(2, 12, 8), torch.ones(2, 12, dtype=torch.bool)
    mask[1] = False
    for count in (1, 4):
        pool = aggregation(count)
        merged = pool(tiles, mask)
        longer = pool(torch.cat([tiles, 1e3 * torch.ones(2, 5, 8)], dim=1), torch.cat([mask, mask[:, :5] & False], 1))
        torch.testing.assert_close(merged.tokens[0], longer.tokens[0])
        assert merged.kept[1].tolist() == [0, 0]
        assert torch.isfinite(merged.tokens).all()
        merged.tokens.sum().backward()
        assert all(
            torch.isfinite(parameter.grad).all() for parameter in pool.parameters() if parameter.grad is not None
        )


def test_two_runs_are_equal_bit_for_bit():
    torch.manual_seed(1)
    tiles, mask = torch.randn(1, 300, 8), torch.ones(1, 300, dtype=torch.bool)
    first, second = aggregation(4)(tiles, mask), aggregation(4)(tiles, mask)
    assert torch.equal(first.tokens, second.tokens)


def test_switched_off_it_is_the_mean():
    torch.manual_seed(1)
    tiles, mask = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    pool = MeanAggregation(8, 2)
    torch.testing.assert_close(pool(tiles, mask).tokens[0, 1, 0], pool.norm(tiles).mean(dim=1)[0])

"""Nyström attention: softmax attention through a few landmarks, linear in the number of rows (Xiong et al., AAAI 2021).

Notation: B samples, N rows (padded), d width, h heads, m landmarks, W the pseudo-inverse of the landmarks' own
attention. What is computed is softmax(Q K̃ᵀ) W (softmax(Q̃ Kᵀ) V); the outer two products go through
`scaled_dot_product_attention`, so that no [N, m] map is kept for the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NystromAttention(nn.Module):
    """Self-attention [B, N, d] -> [B, N, d], plus a depth-wise convolution of the values along the rows.

    Landmarks are means of consecutive real rows of a sample; padded rows take no part in anything. A sample with no
    more rows than landmarks gets exact attention. So what a sample gives depends neither on its padding nor on the
    samples beside it.

    Parameters
    ----------
    landmarks
        m, for samples of more rows than that.
    iterations
        Steps of the iterative pseudo-inverse.
    kernel
        Length of the convolution of the values, odd.
    dropout
        After the output layer.
    mask_padding
        False: as in the published implementation (MIRROR specification §2.1). `mask` is not looked at; zero rows before
        the first fill the rows up to a multiple of m and take their share of every softmax; the start of the
        pseudo-inverse is common to all samples and heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        landmarks: int,
        *,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.0,
        mask_padding: bool = True,
    ):
        super().__init__()
        self.heads, self.landmarks, self.iterations, self.mask_padding = heads, landmarks, iterations, mask_padding
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.local = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
        self.out, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Rows [B, N, d] and True at the real ones [B, N]; padded rows come back as zeros."""
        if not self.mask_padding:
            padded = F.pad(x, (0, 0, -x.shape[1] % self.landmarks, 0))
            means = padded.unflatten(1, (self.landmarks, -1)).mean(dim=2)
            return self.dropout(self.out(self._attend(padded, means)[:, -x.shape[1] :]))
        # A short bag needs no more landmarks than it has rows.
        means, count = segment_means(x, mask, min(self.landmarks, x.shape[1]))
        attended = self._attend(x * mask.unsqueeze(-1), means, mask, count)
        return self.dropout(self.out(attended)) * mask.unsqueeze(-1)

    def _attend(self, x: Tensor, means: Tensor, mask: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        """Rows [B, N, d] and landmarks [B, m, d]; `count` [B] are the rows of each sample, where that matters."""
        query, key, value = self._heads(x)
        # There is no bias, so that means of projected rows are projected means of rows.
        near_query, near_key, near_value = self._heads(means)
        keys, landmarks, exact = None, None, None
        if mask is not None:
            keys = mask | (count == 0)[:, None]  # a softmax over nothing is not a number
            keys = keys[:, None, None, :]
            exact = (count <= self.landmarks)[:, None, None, None]
            landmarks = torch.arange(means.shape[1], device=x.device) < count.clamp(min=1)[:, None]
            landmarks = landmarks[:, None, None, :]
        if exact is not None and exact.all():
            summary = near_value
        else:
            inverse = self._inverse(near_query, near_key).to(value.dtype)
            summary = inverse @ F.scaled_dot_product_attention(near_query, key, value, attn_mask=keys)
            if exact is not None:
                summary = torch.where(exact, near_value, summary)
        attended = F.scaled_dot_product_attention(query, near_key, summary, attn_mask=landmarks) + self.local(value)
        return attended.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, h, N, d / h]."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _inverse(self, query: Tensor, key: Tensor) -> Tensor:
        """W [B, h, m, m], in single precision: its iteration does not converge in half."""
        with torch.autocast(query.device.type, enabled=False):
            scores = query.float() @ key.float().transpose(-1, -2) / query.shape[-1] ** 0.5
            return pseudo_inverse(torch.softmax(scores, dim=-1), self.iterations, together=not self.mask_padding)


def segment_means(x: Tensor, mask: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Means over stretches of consecutive real rows.

    Parameters
    ----------
    x, mask
        Rows [B, N, d] and True at the real ones [B, N].
    segments
        m. A sample of n ≥ m rows is cut into m stretches as equal as can be; with fewer, each row is a stretch.

    Returns
    -------
    Means [B, m, d], zero where a sample has no such stretch, and the samples' numbers n of real rows [B].
    """
    batch, _, dim = x.shape
    count = mask.sum(dim=1)
    stretch = (mask.cumsum(dim=1) - 1) * count.clamp(max=segments)[:, None] // count.clamp(min=1)[:, None]
    stretch = torch.where(mask, stretch, segments)  # padded rows fall into one more, which is dropped
    at = (stretch + torch.arange(batch, device=x.device)[:, None] * (segments + 1)).flatten()
    total = x.new_zeros(batch * (segments + 1), dim).index_add(0, at, x.reshape(-1, dim))
    size = x.new_zeros(batch * (segments + 1)).index_add(0, at, x.new_ones(len(at)))
    means = (total / size.clamp(min=1)[:, None]).view(batch, segments + 1, dim)
    return means[:, :segments], count


def pseudo_inverse(matrix: Tensor, iterations: int, *, together: bool = False) -> Tensor:
    """Approximate Moore–Penrose inverse [..., m, m] by a third-order iteration (Razavi et al. 2014).

    Parameters
    ----------
    matrix
        [..., m, m], not negative.
    together
        One scale of the start for all matrices, by their largest sums (published), instead of one each.
    """
    columns, rows = matrix.sum(dim=-2), matrix.sum(dim=-1)
    largest = (columns.max() * rows.max()) if together else (columns.amax(dim=-1) * rows.amax(dim=-1))[..., None, None]
    inverse = matrix.transpose(-1, -2) / largest
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return inverse

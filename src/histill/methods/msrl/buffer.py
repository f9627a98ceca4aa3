"""The buffer of training cases that lend their genes (specification §2.7, §5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.errors import HistillError

_UNKNOWN = -1
POLICIES = ("keyed", "fifo")


class CaseBuffer(nn.Module):
    """Vectors of M training cases with real genes, in half precision; all of it is in the `state_dict`.

    A new case takes an empty row, or else the oldest. With the policy `keyed` a case that is in the buffer gets its
    own row overwritten, so that it is there once; with `fifo` every write goes to the next row of the ring (published).

    Parameters
    ----------
    capacity
        M.
    width
        Of a vector: 2d, gene half and slide half.

    Attributes
    ----------
    values
        float16 [M, width].
    case, cohort
        Codes, int64 [M]; −1 in empty rows.
    age
        Number of the write a row comes from, int64 [M]; −1 in empty rows.
    """

    def __init__(self, capacity: int, width: int, policy: str = "keyed"):
        super().__init__()
        if policy not in POLICIES:
            raise HistillError(f"policy '{policy}' of the buffer is not known", mend=f"use {' or '.join(POLICIES)}")
        self.policy = policy
        self.register_buffer("values", torch.zeros(capacity, width, dtype=torch.float16))
        for name in ("case", "cohort", "age"):
            self.register_buffer(name, torch.full((capacity,), _UNKNOWN))

    def __len__(self) -> int:
        """Number of rows that are filled."""
        return int((self.case >= 0).sum())

    def rows(self, without: Tensor | None = None) -> Tensor:
        """Numbers of the filled rows [R], rising; none of the cases `without` [B]."""
        filled = self.case >= 0
        if without is not None:
            filled &= ~torch.isin(self.case, without)
        return filled.nonzero().squeeze(1)

    @torch.no_grad()
    def write(self, cases: Tensor, values: Tensor, cohorts: Tensor) -> None:
        """Store cases [B] with their vectors [B, width] and cohorts [B].

        Keyed, the last of several vectors of one case stays. Of more vectors than rows the last stay.

        Raises
        ------
        HistillError
            If a vector is not finite in half precision, or a case has no code.
        """
        values = values.to(self.values.dtype)
        if not torch.isfinite(values).all():
            raise HistillError(
                "vectors of cases are not finite in half precision", mend="lower training.model.learning_rate"
            )
        if (cases < 0).any():
            raise HistillError("cases without a code cannot be stored", mend="give every paired case its pseudonym")
        last = self._last(cases) if self.policy == "keyed" else torch.arange(len(cases), device=cases.device)
        last = last[len(last) - min(len(last), len(self.case)) :]
        cases, values, cohorts = cases[last], values[last], cohorts[last]
        rows = self._places(cases)
        stamps = torch.arange(len(cases), device=cases.device)
        if len(cases):
            stamps = stamps + self.age.max() + 1
        self.values[rows], self.case[rows], self.cohort[rows], self.age[rows] = values, cases, cohorts, stamps

    def _last(self, cases: Tensor) -> Tensor:
        """Where each case is for the last time, rising."""
        order = cases.argsort(stable=True)
        ordered = cases[order]
        ends = torch.ones_like(ordered, dtype=torch.bool)
        ends[:-1] = ordered[1:] != ordered[:-1]
        return order[ends].sort().values

    def _places(self, cases: Tensor) -> Tensor:
        """The row of each case [B]: its own, or the emptiest and oldest of the others."""
        rows = torch.full_like(cases, _UNKNOWN)
        taken = torch.zeros_like(self.case, dtype=torch.bool)
        if self.policy == "keyed" and len(self.case):
            order = self.case.argsort()
            place = torch.searchsorted(self.case[order], cases).clamp(max=len(order) - 1)
            known = self.case[order[place]] == cases
            rows[known] = order[place[known]]
            taken[rows[known]] = True
        new = rows == _UNKNOWN
        age = self.age.masked_fill(taken, torch.iinfo(torch.int64).max)
        rows[new] = age.argsort(stable=True)[: int(new.sum())]
        return rows

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from histill.errors import HistillError
from histill.methods.msrl.buffer import POLICIES, CaseBuffer


def write(buffer: CaseBuffer, *cases: int, add: float = 0.0) -> None:
    """Each case with its code + `add` as vector and its code / 10 as cohort."""
    codes = torch.tensor(cases, dtype=torch.int64)
    buffer.write(codes, (codes + add)[:, None].expand(-1, 2), codes // 10)


def ages(buffer: CaseBuffer) -> list[int]:
    """Cases by age, oldest first."""
    filled = buffer.case[buffer.case >= 0]
    return filled[buffer.age[buffer.case >= 0].argsort()].tolist()


def test_the_ring_keeps_the_order_and_wraps_around():
    buffer = CaseBuffer(4, 2, "fifo")
    write(buffer, 10, 11, 12)
    assert len(buffer) == 3
    write(buffer, 13, 14, 15)
    assert buffer.case.tolist() == [14, 15, 12, 13]
    assert ages(buffer) == [12, 13, 14, 15]
    write(buffer, 12)
    assert buffer.case.tolist() == [14, 15, 12, 13]
    write(buffer, 14)
    assert buffer.case.tolist() == [14, 15, 12, 14]  # a ring does not look at who is there
    assert buffer.age.tolist() == [4, 5, 6, 7]


def test_a_case_overwrites_its_own_row():
    buffer = CaseBuffer(4, 2)
    write(buffer, 10, 21, 32)
    write(buffer, 21, 43, add=0.5)
    assert buffer.case.tolist() == [10, 21, 32, 43]
    assert buffer.cohort.tolist() == [1, 2, 3, 4]
    assert buffer.values[:, 0].tolist() == [10.0, 21.5, 32.0, 43.5]
    write(buffer, 54, 10)
    assert buffer.case.tolist() == [10, 21, 54, 43]  # the oldest of the others gave way
    assert ages(buffer) == [21, 43, 54, 10]


def test_both_policies_agree_where_the_buffer_holds_all_cases():
    keyed, ring = CaseBuffer(6, 2), CaseBuffer(6, 2, "fifo")
    for epoch in range(3):
        for half in torch.randperm(6).split(3):
            write(keyed, *half.tolist(), add=epoch / 8)
            write(ring, *half.tolist(), add=epoch / 8)
    order = keyed.case.argsort(), ring.case.argsort()
    assert torch.equal(keyed.values[order[0]], ring.values[order[1]])


def test_the_last_vector_of_a_case_stays():
    buffer = CaseBuffer(4, 1)
    buffer.write(torch.tensor([5, 6, 5]), torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, dtype=torch.int64))
    assert dict(zip(buffer.case.tolist(), buffer.values[:, 0].tolist(), strict=True)) == {6: 2.0, 5: 3.0, -1: 0.0}


@pytest.mark.parametrize("policy", POLICIES)
def test_more_cases_than_rows(policy):
    buffer = CaseBuffer(3, 2, policy)
    write(buffer, *range(20, 30))
    assert sorted(buffer.case.tolist()) == [27, 28, 29]
    nothing = CaseBuffer(0, 2, policy)
    write(nothing, 1, 2)
    assert len(nothing) == 0
    write(buffer)
    assert len(buffer) == 3


def test_rows_of_some_cases_are_left_out():
    buffer = CaseBuffer(5, 2)
    assert buffer.rows().tolist() == []
    write(buffer, 10, 11, 12)
    assert buffer.rows().tolist() == [0, 1, 2]
    assert buffer.rows(without=torch.tensor([11, 99, -1])).tolist() == [0, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_saved_and_read_it_goes_on_alike(policy):
    first, second = CaseBuffer(3, 2, policy), CaseBuffer(3, 2, policy)
    write(first, 10, 11, 12, 13)
    second.load_state_dict(load(save(first.state_dict())))
    for buffer in (first, second):
        write(buffer, 12, 14, add=0.25)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert first.state_dict().keys() == {"values", "case", "cohort", "age"}
    assert first.values.dtype == torch.float16


def test_what_cannot_be_stored_is_refused():
    buffer, cohort = CaseBuffer(2, 1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(HistillError, match="not finite"):
        buffer.write(torch.tensor([1]), torch.tensor([[1e6]]), cohort)
    with pytest.raises(HistillError, match="without a code"):
        buffer.write(torch.tensor([-1]), torch.tensor([[1.0]]), cohort)
    with pytest.raises(HistillError, match="lifo"):
        CaseBuffer(2, 1, "lifo")
    assert len(buffer) == 0

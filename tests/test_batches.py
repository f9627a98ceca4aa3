from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histill import batches
from histill.cohort.sheets import Slide
from histill.errors import HistillError, SlideError
from histill.provenance import OK, QUARANTINED, Receipt

IDS = st.sets(st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True), max_size=200)


@given(ids=IDS, size=st.integers(2, 70))
def test_every_slide_is_in_exactly_one_batch(ids, size):
    assigned = batches.assign(ids, size)
    members = [slide for slides in assigned.values() for slide in slides]
    assert sorted(members) == sorted(ids)
    assert all(slides for slides in assigned.values())


@given(ids=IDS.filter(lambda ids: len(ids) > 1), size=st.integers(2, 70))
def test_membership_does_not_depend_on_the_order_of_the_sheet(ids, size):
    assert batches.assign(sorted(ids), size) == batches.assign(sorted(ids, reverse=True), size)


def test_adding_a_slide_changes_one_batch():
    ids = [f"slide-{index}" for index in range(50)]
    before, after = batches.assign(ids, 8), batches.assign([*ids, "new"], 8)
    changed = [name for name in after if before.get(name) != after[name]]
    assert len(changed) == 1
    assert "new" in after[changed[0]]


def test_auto_is_one_slide_a_batch_on_small_cohorts():
    assert batches.assign(["b", "a"]) == {"a": ["a"], "b": ["b"]}
    assert len(batches.assign([f"s{index}" for index in range(640)])) == 10


def test_a_growing_cohort_fills_few_batches_anew():
    """Three at most: the new slide's, and one that is split in two."""
    ids = [f"slide-{index}" for index in range(1_100)]
    made = [batches.assign(ids[:length], 8) for length in range(200, len(ids))]
    changed = [
        {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        for before, after in pairwise(made)
    ]
    assert max(map(len, changed)) == 3
    assert sum(map(len, changed)) < 1.3 * len(changed)
    assert all(max(map(len, own.values())) < 4 * 8 for own in made)


class Work:
    """Counts which slides were worked on; `bad` ones raise."""

    def __init__(self, bad=()):
        self.done = []
        self.bad = bad

    def __call__(self, slide, receipt):
        self.done.append(slide.slide_id)
        if slide.slide_id in self.bad:
            raise SlideError("cannot be read", mend="scan it again")


def slides(*names):
    return [Slide(name, "p", f"{name}.svs") for name in names]


def run(tmp_path, work, names, *, recipe="r1", inputs=None, **options):
    return batches.run_batch(
        "inspect",
        slides(*names),
        work,
        results=tmp_path,
        recipe=recipe,
        inputs=inputs or (lambda slide: {"slide": slide.slide_id}),
        log=lambda _: None,
        **options,
    )


def test_a_slide_is_skipped_until_its_recipe_or_input_changes(tmp_path):
    work = Work()
    run(tmp_path, work, "ab")
    run(tmp_path, work, "abc")
    assert work.done == ["a", "b", "c"]
    run(tmp_path, work, "abc", recipe="r2")
    assert work.done[3:] == ["a", "b", "c"]
    run(tmp_path, work, "abc", recipe="r2", inputs=lambda slide: {"slide": slide.slide_id.replace("b", "new")})
    assert work.done[6:] == ["b"]


def test_a_missing_output_is_made_again(tmp_path):
    def work(slide, receipt):
        (tmp_path / "out").write_text("x")
        receipt.outputs = {"out": "digest"}

    run(tmp_path, work, "a")
    (tmp_path / "out").unlink()
    run(tmp_path, work, "a")
    assert (tmp_path / "out").exists()


def test_a_bad_slide_is_quarantined_and_tried_again(tmp_path):
    receipts = run(tmp_path, Work(bad="b"), "abc")
    assert [receipt.state for receipt in receipts] == [OK, QUARANTINED, OK]
    assert (receipts[1].reason, receipts[1].mend) == ("cannot be read", "scan it again")
    mended = Work()
    assert [receipt.state for receipt in run(tmp_path, mended, "abc")] == [OK] * 3
    assert mended.done == ["b"]


def test_an_unforeseen_error_is_quarantined_with_its_type(tmp_path):
    def work(slide, receipt):
        raise MemoryError("too big")

    receipt = run(tmp_path, work, "a")[0]
    assert receipt.state == QUARANTINED
    assert receipt.reason == "a.svs: MemoryError: too big"


def test_fail_stops_after_writing_the_receipt(tmp_path):
    with pytest.raises(SlideError, match="slide b"):
        run(tmp_path, Work(bad="b"), "abc", on_error="fail")
    assert Receipt.read(batches.receipt_path(tmp_path, "inspect", "b")).state == QUARANTINED


def test_a_quarantined_slide_is_passed_on_with_its_reason(tmp_path):
    run(tmp_path, Work(bad="b"), "ab")
    work = Work()
    receipts = batches.run_batch(
        "tissue", slides("a", "b"), work, results=tmp_path, recipe="t", inputs=lambda _: {}, before="inspect",
        log=lambda _: None,
    )  # fmt: skip
    assert work.done == ["a"]
    assert [receipt.state for receipt in receipts] == [OK, QUARANTINED]
    assert receipts[1].reason == "cannot be read"
    assert receipts[1].info == {"stage": "inspect"}


def test_slides_that_were_done_again_in_other_batches_are_named(tmp_path):
    said = [Receipt(slide, "tiles", "ok", "recipe", outputs={"t": "1"}) for slide in "abc"]
    for receipt in said[:2]:  # of the third none is there
        receipt.write(batches.receipt_path(tmp_path, "tiles", receipt.slide))
    batches.check_current(tmp_path, "tiles", said)
    for changes in ({"recipe": "another"}, {"outputs": {"t": "2"}}, {"inputs": {"slide": "x"}}):
        replace(said[1], **changes).write(batches.receipt_path(tmp_path, "tiles", "b"))
        with pytest.raises(HistillError, match="1 slides were done again since their batches: b") as caught:
            batches.check_current(tmp_path, "tiles", said)
        assert "snakemake -R tiles_batch" in caught.value.mend


def test_batch_receipts_are_collected_sorted(tmp_path):
    for name, members in (("0of2", "bd"), ("1of2", "ac")):
        batches.write_batch(tmp_path / f"{name}.json", "inspect", run(tmp_path, Work(), members))
    collected = batches.collect([tmp_path / "0of2.json", tmp_path / "1of2.json"])
    assert [receipt.slide for receipt in collected] == list("abcd")


@pytest.mark.parametrize("content", ["{}", "[]", '{"slides": [1]}', '{"slides": [{"slide": "S1"}]}', '{"slides": nu'])
def test_a_damaged_batch_receipt_is_named(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(HistillError, match=r"b\.json") as caught:
        batches.collect([path])
    assert caught.value.mend == "delete it and run snakemake again"

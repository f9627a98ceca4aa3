from __future__ import annotations

import os

import pytest

from histill.errors import HistillError
from histill.provenance import (
    Receipt,
    atomic_file,
    atomic_folder,
    digest,
    file_digest,
    fingerprint,
    read_json,
    tree_digest,
    verify_outputs,
    write_csv,
    write_json,
)


def test_digest_ignores_key_order_and_sees_values():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


def test_digest_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))


@pytest.mark.parametrize("size", [0, 10, 1 << 20, (16 << 20) + 12345, 40 << 20])
def test_fingerprint_sees_size_and_both_ends(tmp_path, size):
    path = tmp_path / "slide.svs"
    path.write_bytes(bytes(size))
    first = fingerprint(path)
    assert fingerprint(path) == first
    path.write_bytes(bytes(size + 1))
    assert fingerprint(path) != first
    for position in (0, size - 1) if size else ():
        content = bytearray(size)
        content[position] = 1
        path.write_bytes(content)
        assert fingerprint(path) != first


def test_atomic_file_leaves_the_old_content_when_the_block_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def fail() -> None:
        with atomic_file(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"old": True}
    assert os.listdir(tmp_path) == ["a.json"]


def test_atomic_folder_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.zarr"
    for content in ("one", "two"):
        with atomic_folder(path) as part:
            (part / "data").write_text(content)
    assert (path / "data").read_text() == "two"

    def fail() -> None:
        with atomic_folder(path) as part:
            (part / "data").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (path / "data").read_text() == "two"
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_tree_digest_sees_names_and_content(tmp_path):
    (tmp_path / "a").write_text("x")
    first = tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = tree_digest(tmp_path)
    (tmp_path / "b").write_text("y")
    assert len({first, second, tree_digest(tmp_path)}) == 3


def test_unreadable_json_names_the_file(tmp_path):
    with pytest.raises(HistillError, match=r"missing\.json"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "half.json").write_text('{"a":')
    with pytest.raises(HistillError, match=r"half\.json"):
        read_json(tmp_path / "half.json")


def test_receipt_round_trip_and_damage(tmp_path):
    receipt = Receipt("s1", "tiles", "ok", "abc", counts={"10x": 3}, warnings=["w"])
    receipt.write(tmp_path / "r.json")
    assert Receipt.read(tmp_path / "r.json") == receipt
    for damage in ("", '{"slide":', '{"unknown": 1}', "[]"):
        (tmp_path / "r.json").write_text(damage)
        assert Receipt.read(tmp_path / "r.json") is None
    assert Receipt.read(tmp_path / "absent.json") is None


@pytest.mark.parametrize("read", [read_json, Receipt.read])
def test_a_folder_in_place_of_a_file_is_named_with_the_mend(tmp_path, read):
    (tmp_path / "r.json").mkdir()
    with pytest.raises(HistillError, match=r"r\.json is a folder") as caught:
        read(tmp_path / "r.json")
    assert "move it away" in caught.value.mend


def test_a_file_cannot_be_written_where_a_folder_lies_nor_below_a_file(tmp_path):
    (tmp_path / "r.json").mkdir()
    (tmp_path / "file").write_text("x")
    for path, said in (("r.json", "is a folder where a file belongs"), ("file/a/r.json", "a file lies where")):
        with pytest.raises(HistillError, match=said) as caught:
            write_json(tmp_path / path, {})
        assert "move it away" in caught.value.mend
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "r.json"]
    assert Receipt.read(tmp_path / "file" / "r.json") is None


def test_file_digest_is_of_content(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")


def test_csv_rows_may_lack_cells(tmp_path):
    write_csv(tmp_path / "t.csv", ("a", "b"), [{"a": "x, y", "b": 1}, {"a": "z"}])
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\n"x, y",1\nz,\n'


def test_outputs_are_verified_by_content_but_for_what_people_edit(tmp_path):
    for name in ("slide.json", "tissue.geojson"):
        (tmp_path / name).write_text("made")
    (tmp_path / "store.zarr").mkdir()
    names = {name: file_digest(tmp_path / name) for name in ("slide.json", "tissue.geojson")}
    receipt = Receipt("S1", "inspect", "ok", "r", outputs={**names, "store.zarr": "not looked at"})
    assert verify_outputs(receipt, tmp_path)
    (tmp_path / "tissue.geojson").write_text("edited")
    assert verify_outputs(receipt, tmp_path)
    (tmp_path / "slide.json").write_text("damaged")
    assert not verify_outputs(receipt, tmp_path)
    (tmp_path / "slide.json").write_text("made")
    (tmp_path / "store.zarr").rmdir()
    assert not verify_outputs(receipt, tmp_path)


def test_text_that_is_no_utf8_comes_back_as_it_was(tmp_path):
    value = {"reason": "cannot read sl\udce9.svs", "name": "Läsion"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Läsion" in (tmp_path / "a.json").read_text(encoding="utf-8")

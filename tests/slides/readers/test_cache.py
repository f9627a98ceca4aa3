"""Decoded tiles shared by threads: each decoded once, kept while it is expected, within the bound."""

import threading
import time

import numpy as np
import pytest

from histill.slides.readers import cache
from histill.slides.readers.cache import TileCache

SHAPE = (10,)


class Decoder:
    """Counts what is decoded; a tile holds its key."""

    def __init__(self):
        self.decoded = []

    def __call__(self, key):
        def make(buffer):
            self.decoded.append(key)
            tile = np.empty(SHAPE, np.uint8) if buffer is None else buffer
            tile[:] = key
            return tile

        return make


@pytest.fixture
def decoder():
    return Decoder()


@pytest.fixture(autouse=True)
def no_slabs(monkeypatch):
    monkeypatch.setattr(cache, "_SLAB_BYTES", 1)


def read(shared, decoder, keys, name=None, shape=SHAPE):
    with shared.region(name, keys) as region:
        for key in keys:
            assert (region.tile(key, decoder(key), shape) == key).all()


def held(shared):
    kept = [entry.pixels.nbytes for entry in shared._entries.values()]
    return sum(kept) + sum(size * len(buffers) for size, buffers in shared._spare.items())


@pytest.mark.parametrize("shape", [SHAPE, None])
def test_the_least_recently_used_goes(decoder, shape):
    shared = TileCache(20)
    for key in (1, 2, 1, 3, 1, 2):
        read(shared, decoder, [key], shape=shape)
    assert decoder.decoded == [1, 2, 3, 2]
    assert shared._held == held(shared) == 20


def test_one_tile_is_kept_whatever_its_size(decoder):
    shared = TileCache(5)
    read(shared, decoder, [1], shape=None)
    read(shared, decoder, [1], shape=None)
    read(shared, decoder, [2], shape=None)
    assert decoder.decoded == [1, 2]
    assert list(shared._entries) == [2]


def test_an_expected_tile_is_kept_until_its_last_use_and_its_memory_used_again(decoder):
    shared = TileCache(1000)
    regions = [("a", [1, 2]), ("b", [2, 3]), ("b", [2, 3])]
    shared.expect(regions)
    kept = []
    for name, keys in regions:
        read(shared, decoder, keys, name)
        kept.append(sorted(shared._entries))
    assert kept == [[2], [2, 3], []]
    assert decoder.decoded == [1, 2, 3]
    assert shared._held == held(shared) == 20  # of the first tile for the third
    assert not shared._uses
    assert not shared._announced


def test_a_region_that_was_not_announced_uses_nothing_up(decoder):
    shared = TileCache(1000)
    shared.expect([("a", [1])])
    read(shared, decoder, [1, 2], "other")
    read(shared, decoder, [1], "a")
    assert decoder.decoded == [1, 2]
    assert list(shared._entries) == [2]


def test_the_bound_holds_for_expected_tiles_too(decoder):
    shared = TileCache(30)
    regions = [(number, [number]) for number in range(9)] * 2
    shared.expect(regions)
    for name, keys in regions:
        read(shared, decoder, keys, name)
        assert shared._held == held(shared) <= 30
    assert len(decoder.decoded) == 9 + 7  # the last ones of the first round are there until their turn comes


def test_less_memory_is_taken_while_nothing_is_expected(decoder):
    shared = TileCache(50, 20)
    read(shared, decoder, [1, 2, 3])
    assert list(shared._entries) == [2, 3]
    shared.expect([("a", [4]), ("b", [5])])
    read(shared, decoder, [4], "a")
    assert list(shared._entries) == [2, 3]
    read(shared, decoder, [6, 7])
    assert list(shared._entries) == [2, 3, 6, 7]
    read(shared, decoder, [5], "b")
    read(shared, decoder, [8, 9])
    assert list(shared._entries) == [3, 6, 7, 8, 9]  # memory that was taken is used
    assert shared._held == held(shared) == 50


def test_buffers_of_another_size_make_room():
    shared = TileCache(40)
    for size in (10, 10, 40, 10):
        with shared.region(None, []) as region:
            for key in range(3):
                region.tile((size, key), lambda buffer: buffer, (size,))
        assert shared._held == held(shared) <= 40


def test_a_failing_region_gives_up_its_uses(decoder):
    shared = TileCache(1000)
    shared.expect([("a", [1, 2, 3]), ("b", [3])])

    def fail(_):
        raise ValueError("damaged")

    def read_two():
        with shared.region("a", [1, 2, 3]) as region:
            region.tile(1, decoder(1), SHAPE)
            region.tile(2, fail, SHAPE)

    with pytest.raises(ValueError, match="damaged"):
        read_two()
    assert dict(shared._uses) == {3: 1}
    assert not shared._entries
    assert shared._held == held(shared)
    read(shared, decoder, [3], "b")
    assert not shared._uses


def run(*functions):
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_threads_that_want_one_tile_decode_it_once_and_others_go_on(decoder):
    shared = TileCache(1000)
    begun, other_read = threading.Event(), threading.Event()

    def slow(buffer):
        begun.set()
        assert other_read.wait(10)  # while this one decodes
        return decoder(1)(buffer)

    def first():
        with shared.region(None, []) as region:
            region.tile(1, slow, SHAPE)

    def same():
        begun.wait(10)
        read(shared, decoder, [1])

    def other():
        begun.wait(10)
        read(shared, decoder, [2])
        other_read.set()

    run(first, same, same, other)
    assert decoder.decoded == [2, 1]


def test_a_thread_that_fails_leaves_nobody_waiting(decoder):
    shared = TileCache(1000)
    begun, errors = threading.Event(), []

    def fail(_):
        begun.set()
        time.sleep(0.05)
        raise ValueError("damaged")

    def first():
        try:
            with shared.region(None, []) as region:
                region.tile(1, fail, SHAPE)
        except ValueError as error:
            errors.append(error)

    def waiting():
        begun.wait(10)
        read(shared, decoder, [1])

    run(first, waiting, waiting)
    assert len(errors) == 1
    assert decoder.decoded == [1]
    assert shared._held == held(shared) == 10


def test_many_threads_with_little_room(decoder):
    """Tiles are never given away while a thread looks at them, and the bound holds but for those in use."""
    shared = TileCache(60)
    wrong = []

    def work(seed):
        def inner():
            random = np.random.default_rng(seed)
            for _ in range(400):
                keys = random.integers(0, 12, 3).tolist()
                with shared.region(None, keys) as region:
                    for key in keys:
                        tile = region.tile(key, decoder(key), SHAPE)
                        time.sleep(0)
                        if not (tile == key).all():
                            wrong.append(key)

        return inner

    run(*(work(seed) for seed in range(4)))
    assert not wrong
    assert shared._held == held(shared) <= 60
    assert not any(entry.users for entry in shared._entries.values())

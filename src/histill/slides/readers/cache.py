"""Decoded tiles of one slide, shared by the threads that read it.

A tile is decoded by the first thread that wants it, while others that want it wait and everything else goes on: the
lock is never held while decoding. Where the regions to come are known, a tile is kept until the last of them has used
it, and its memory is used again for the next tile: fresh memory costs half as much as decoding a JPEG tile.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from math import prod

import numpy as np

# Of row-major fields, a row of file tiles is kept for the next row: 61 MB over 80,000 px of 256 px tiles. Beyond the
# bound the least recently used tile goes, whether it is expected or not, and is decoded again when it is wanted.
CACHE_BYTES = 256 << 20
RECENT_BYTES = 32 << 20  # neighbouring regions share tiles
# NumPy asks for huge pages where it takes 4 MB and more; decoding into small ones takes a fifth longer.
_SLAB_BYTES = 16 << 20
_VECTOR = 32  # bytes


class _Entry:
    """A tile: `ready` once it is decoded; not dropped while it has `users`."""

    __slots__ = ("pixels", "ready", "recycled", "users")

    def __init__(self) -> None:
        self.pixels: np.ndarray | None = None
        self.users = 1
        self.ready = False
        self.recycled = False


class TileCache:
    """Decoded tiles up to a number of bytes together; those in use, and so the last one, are kept whatever their size.

    Parameters
    ----------
    room
        Bytes, with the buffers that wait to be used again.
    recent
        Bytes up to which memory is taken while no tile is expected.
    """

    def __init__(self, room: int = CACHE_BYTES, recent: int = RECENT_BYTES):
        self._most, self._recent = room, recent
        self._held = 0
        self._lock = threading.Lock()
        self._decoded = threading.Condition(self._lock)
        self._waiting = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._spare: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self._announced: Counter[Hashable] = Counter()
        self._uses: dict[Hashable, int] = {}

    def expect(self, regions: Iterable[tuple[Hashable, Sequence[Hashable]]]) -> None:
        """Say which regions will be read, each with the keys of its tiles; they add to those said before."""
        announced: Counter[Hashable] = Counter()
        uses: Counter[Hashable] = Counter()
        for name, keys in regions:
            if keys:
                announced[name] += 1
                uses.update(keys)
        with self._lock:
            self._announced.update(announced)
            for key, count in uses.items():
                self._uses[key] = self._uses.get(key, 0) + count

    def region(self, name: Hashable, keys: Sequence[Hashable]) -> Region:
        """Tiles of one region, for one thread: a context manager."""
        with self._lock:
            expected = self._announced.get(name, 0)
            if expected > 1:
                self._announced[name] -= 1
            elif expected:
                del self._announced[name]
        return Region(self, keys if expected else ())

    @property
    def _room(self) -> int:
        return self._most if self._uses else min(self._most, self._recent)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key)
        if entry.pixels is None:
            return
        if entry.recycled:
            self._spare[entry.pixels.nbytes].append(entry.pixels)
        else:
            self._held -= entry.pixels.nbytes

    def _shrink(self, wanted: int) -> bool:
        """Give up one buffer of another size than wanted, else the least recently used tile; False if there is none."""
        for size, buffers in self._spare.items():
            if buffers and size != wanted:
                buffers.pop()
                self._held -= size
                return True
        oldest = next((key for key, entry in self._entries.items() if not entry.users), None)
        if oldest is None:
            return False
        self._drop(oldest)
        return True

    def _buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        size = prod(shape)
        spare = self._spare[size]
        while not spare and self._held + size > self._room and self._shrink(size):
            pass
        if not spare:
            count = max(1, min(_SLAB_BYTES, self._room - self._held) // size)
            spare.extend(_slab(count, size))
            self._held += count * size
        return spare.pop().reshape(shape)


def _slab(count: int, size: int) -> np.ndarray:
    """Buffers [count, size] in one piece of memory, which is freed with the last of them.

    They start half-way between multiples of 32 bytes. Where rows start on one, libjpeg-turbo stores them past the
    processor's cache: that takes a third longer, and to copy from them is slow.
    """
    pitch = -(-size // _VECTOR) * _VECTOR
    memory = np.empty(count * pitch + 2 * _VECTOR, np.uint8)
    start = (_VECTOR // 2 - memory.ctypes.data) % _VECTOR
    return memory[start : start + count * pitch].reshape(count, pitch)[:, :size]


class Region:
    """What one thread reads at a time: it holds one tile, until it asks for the next one or leaves."""

    def __init__(self, cache: TileCache, expected: Sequence[Hashable]):
        self._cache = cache
        self._expected = dict.fromkeys(expected)
        self._key: Hashable = None
        self._entry: _Entry | None = None

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        with self._cache._lock:
            self._let_go()
            for key in self._expected:  # those that a failure left unused
                self._used(key)

    def tile(
        self,
        key: Hashable,
        make: Callable[[np.ndarray | None], np.ndarray | None],
        shape: tuple[int, ...] | None = None,
    ) -> np.ndarray | None:
        """The tile under a key; it is valid until the next call.

        Parameters
        ----------
        make
            Decodes the tile, if it is not kept: into the buffer it is given, or with None into memory of its own. What
            it raises is raised here; another thread that waited then makes its own attempt.
        shape
            Of the buffer, uint8.
        """
        cache = self._cache
        with cache._lock:
            self._let_go()
            while (entry := cache._entries.get(key)) is not None and not entry.ready:
                cache._waiting += 1
                cache._decoded.wait()
                cache._waiting -= 1
            if entry is not None:
                entry.users += 1
                cache._entries.move_to_end(key)
                self._key, self._entry = key, entry
                return entry.pixels
            entry = cache._entries[key] = _Entry()
            try:
                buffer = None if shape is None else cache._buffer(shape)
            except BaseException:
                del cache._entries[key]
                raise
        try:
            pixels = make(buffer)
        except BaseException:
            with cache._lock:
                entry.pixels, entry.recycled = buffer, True
                cache._drop(key)
                cache._decoded.notify_all()
            raise
        with cache._lock:
            entry.pixels, entry.recycled, entry.ready = pixels, buffer is not None, True
            self._key, self._entry = key, entry
            if buffer is None and pixels is not None:
                cache._held += pixels.nbytes
                while cache._held > cache._room and cache._shrink(0):
                    pass
            if cache._waiting:
                cache._decoded.notify_all()
        return pixels

    def _let_go(self) -> None:
        if self._entry is None:
            return
        key, self._key = self._key, None
        self._entry.users -= 1
        self._entry = None
        if key in self._expected:
            del self._expected[key]
            self._used(key)

    def _used(self, key: Hashable) -> None:
        """Count an expected use; after the last one the tile goes."""
        cache = self._cache
        left = cache._uses.pop(key) - 1
        if left:
            cache._uses[key] = left
            return
        entry = cache._entries.get(key)
        if entry is not None and not entry.users:
            cache._drop(key)

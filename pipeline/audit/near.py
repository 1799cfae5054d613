"""All pairs of 64-bit hashes that differ in few bits, without comparing all with all.

Multi-index hashing: Norouzi, Punjani and Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012, with
tables of two blocks as in Manku, Jain and Das Sarma, Detecting Near-Duplicates for Web Crawling, WWW 2007. Nothing is
missed: of r + 2 blocks of a hash, r different bits leave at least two as they are, so a pair within r bits shares a
bucket in the table of these two blocks.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

# Hamming distance of 64-bit perceptual hashes up to which pictures count as near-identical. Of unrelated ones
# one pair in about 10^10 comes as close.
NEAR_BITS = 6
# Most hashes have a near one at few bits, which tables with long keys and small buckets find. What is further away is
# looked for only where nothing nearer was found.
RADII = (0, 1, 3, NEAR_BITS)
AT_ONCE = 1 << 18  # queries, so that their candidates stay in the processor's cache
LONG = 1 << 10  # candidates, from which a query is compared by itself
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # places of hashes, of a near one of each, and their distances


def nearest(hashes: np.ndarray, kinds: np.ndarray, relations: np.ndarray) -> np.ndarray:
    """For each hash, relation and distance: the first hash in this relation that is as near.

    Args:
        hashes: uint64 (n,), such that no two have the same value and kind.
        kinds: int (n,), what the relations are between.
        relations: int (kinds, kinds), symmetric. The relation of a kind to itself is between no two other kinds.

    Returns:
        int32 (relations, NEAR_BITS + 1, n): the smallest index at exactly this distance in bits, n where there is
        none. Past the smallest distance at which a hash has one before itself, indices may be missing.
    """
    count = len(hashes)
    found = np.full((int(relations.max(initial=0)) + 1, NEAR_BITS + 1, count), count, np.int32)
    other_kind = ~np.eye(len(relations), dtype=bool)
    possible = [(other_kind & (relations == relation)).any(axis=1)[kinds] for relation in range(len(found))]
    order = np.argsort(kinds, kind="stable")
    for radius in RADII:
        before = found.min(axis=1, initial=count) < np.arange(count)
        alone = ~before[relations[kinds, kinds], np.arange(count)]
        among_others = (possible & ~before).any(axis=0)
        for key in _keys(hashes, radius):
            table = order[np.argsort(key[order], kind="stable")]  # by key, then kind, then place
            near = _near(hashes[table], key[table], kinds[table], alone[table], among_others[table], radius)
            for query, other, bits in _joined(near):
                query, other = table[query], table[other]
                at = (relations[kinds[query], kinds[other]] * found.shape[1] + bits) * count + query
                np.minimum.at(found.reshape(-1), at, other.astype(np.int32))
    return found


def _keys(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """The hashes' keys in each table: two of radius + 2 blocks."""
    edges = [64 * block // (radius + 2) for block in range(radius + 3)]
    for blocks in combinations(pairwise(edges), 2):
        key, width = np.zeros_like(hashes), 0
        for low, high in blocks:
            size = high - low
            key = key << np.uint64(size) | hashes >> np.uint64(low) & np.uint64((1 << size) - 1)
            width += size
        yield key.astype(np.min_scalar_type((1 << width) - 1))  # short keys are sorted faster


def _near(
    hashes: np.ndarray, key: np.ndarray, kinds: np.ndarray, alone: np.ndarray, among_others: np.ndarray, radius: int
) -> Iterator[Found]:
    """What is near in the buckets of a table, which is sorted by key and kind.

    alone: hashes that are looked for among those of their kind before them; among_others: among all other kinds.
    """
    place = np.arange(len(hashes))
    bucket, run = _bounds(key[1:] != key[:-1]), _bounds((key[1:] != key[:-1]) | (kinds[1:] != kinds[:-1]))
    for asked, start, stop in (
        (alone, run[0], place),
        (among_others, bucket[0], run[0]),
        (among_others, run[1], bucket[1]),
    ):
        queries = np.flatnonzero(asked & (start < stop))
        for at in range(0, len(queries), AT_ONCE):
            part = queries[at : at + AT_ONCE]
            yield from _compared(hashes, part, start[part], stop[part], radius)


def _joined(parts: Iterator[Found]) -> Iterator[Found]:
    """The same in fewer parts."""
    held: list[Found] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part[0])
        if size >= AT_ONCE:
            yield _one(held)
            held, size = [], 0
    if held:
        yield _one(held)


def _one(parts: list[Found]) -> Found:
    query, other, bits = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return query, other, bits


def _bounds(changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each one's group of equal neighbours starts and ends. changes: whether the next one is another."""
    starts = np.flatnonzero(np.concatenate(([True], changes)))
    lengths = np.diff(np.append(starts, len(changes) + 1))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def _compared(
    hashes: np.ndarray, queries: np.ndarray, start: np.ndarray, stop: np.ndarray, radius: int
) -> Iterator[Found]:
    """What is near among the candidates of each query, which lie from start to stop."""
    length = stop - start
    for at in np.flatnonzero(length >= LONG):
        bits = np.bitwise_count(hashes[start[at] : stop[at]] ^ hashes[queries[at]])
        near = np.flatnonzero(bits <= radius)
        yield np.full(len(near), queries[at]), start[at] + near, bits[near]
    # The others at once: each with its first candidate, then with its second ...
    short = np.flatnonzero(length < LONG)
    order = short[np.argsort((LONG - length[short]).astype(np.uint16), kind="stable")]  # the longest first
    length, queries, other = length[order], queries[order], start[order]
    own = hashes[queries]
    counts = np.searchsorted(-length, -np.arange(length.max(initial=0)))  # of queries that have one more
    for count in counts.tolist():
        bits = np.bitwise_count(hashes[other[:count]] ^ own[:count])
        near = np.flatnonzero(bits <= radius)
        if len(near):
            yield queries[near], other[near], bits[near]
        other += 1

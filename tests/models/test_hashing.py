from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2  # type: ignore[import-untyped]  # no py.typed
from hypothesis import given
from hypothesis import strategies as st

from models.hashing import hash64, hash_ids, hash_segments, joined, mix64, murmur2, partition_of
from tests.plain import bounded

WORD = 2**64
ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def plain_mix64(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % WORD
    return value ^ (value >> 31)


def plain_hash64(data: bytes) -> int:
    h = 0x9E3779B97F4A7C15 ^ len(data)
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        h = (h ^ int.from_bytes(data[at : at + 8], "little")) * 0xFF51AFD7ED558CCD % WORD
        h ^= h >> 32
    return plain_mix64(h ^ int.from_bytes(data[whole:], "little"))


def octets(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, dtype=np.uint8)


@bounded
@given(st.binary(max_size=5), st.binary(max_size=40), st.binary(max_size=5))
def test_equal_the_plain_hashes_wherever_the_bytes_lie(before: bytes, data: bytes, after: bytes) -> None:
    buffer, start, end = octets(before + data + after), len(before), len(before) + len(data)
    assert int(hash64(buffer, start, end)) == plain_hash64(data)
    assert murmur2(buffer, start, end) == aiokafka_murmur2(data) & 0x7FFFFFFF


@bounded
@given(st.integers(0, WORD - 1))
def test_mix64_equals_plain_integers(value: int) -> None:
    assert int(mix64(np.uint64(value))) == plain_mix64(value)


def test_mix64_is_the_published_finaliser() -> None:
    # first outputs of SplitMix64 with seed 0 (the state is advanced by the golden gamma before each)
    gamma = 0x9E3779B97F4A7C15
    found = [int(mix64(np.uint64(gamma * n % WORD))) for n in (1, 2, 3)]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@bounded
@given(st.binary(min_size=1, max_size=40), st.integers(1, 64))
def test_partition_is_the_one_of_kafkas_clients(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (aiokafka_murmur2(key) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(
    ("key", "expected"),  # from the test of org.apache.kafka.common.utils.Utils.murmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_the_java_clients(key: bytes, expected: int) -> None:
    assert murmur2(octets(key), 0, len(key)) == expected & 0x7FFFFFFF


@bounded
@given(st.lists(ids, max_size=12))
def test_ids_hash_as_their_utf8_bytes(texts: list[str]) -> None:
    assert hash_ids(texts).tolist() == [plain_hash64(text.encode()) for text in texts]


@bounded
@given(st.lists(ids, min_size=1, max_size=8), st.integers(0, 10))
def test_segments_are_counted_even_without_room_for_them(texts: list[str], room: int) -> None:
    out = np.zeros(room, dtype=np.uint64)
    assert hash_segments(joined(texts), out) == len(texts)
    assert out.tolist()[: len(texts)] == hash_ids(texts).tolist()[:room]


def test_an_id_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        hash_ids(["a", "b\0c"])


def test_many_ids_do_not_collide() -> None:
    hashes = hash_ids([f"{kind}-{n}" for kind in ("item", "user") for n in range(50_000)])
    assert len(np.unique(hashes)) == 100_000
    assert np.bincount((hashes % np.uint64(16)).astype(np.int64)).std() < 200  # low bits are even: 79 expected


@pytest.mark.parametrize("seed", ["0", "7"])
def test_hashes_do_not_depend_on_the_process(seed: str) -> None:
    code = "from models.hashing import hash_ids; print(*hash_ids(['tent', 'mätte']))"
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True)
    assert ran.stdout.split() == [str(h) for h in hash_ids(["tent", "mätte"])], ran.stderr

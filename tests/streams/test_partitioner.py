"""The partition of a key is that which the producers compute."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import murmur2, partition_by

# `org.apache.kafka.common.utils.Utils.murmur2` of kafka-clients 4.3.1; the second to the sixth are those of its own
# test (UtilsTest.testMurmur2). Beside it `toPositive(murmur2) % 8`.
JAVA = [
    (b"", 275646681, 1),
    (b"21", -973932308, 4),
    (b"foobar", -790332482, 6),
    (b"a-little-bit-long-string", -985981536, 0),
    (b"a-little-bit-longer-string", -1486304829, 3),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, 5),
    (b"a", -1563381124, 4),
    (b"ab", 316155434, 2),
    (b"abc", 479470107, 3),
    (b"abcd", -1323649548, 4),
    (b"acct-0042", 273995650, 2),
    ("账户-七".encode(), 1140668937, 1),
    ("\u00ff\u00fe".encode(), -1869419400, 0),
]

# The CRC-32 values that librdkafka's own test expects of its partitioner "consistent" (0048-partitioner.c).
LIBRDKAFKA = [
    (b"", 0x00000000),
    (b"23456", 0xB1B451D7),
    (b"this is another string with more length to it perhaps", 0xB0150DF7),
    (b"hejsan", 0xD077037E),
]


@pytest.mark.parametrize(("key", "hashed", "partition"), JAVA)
def test_murmur2_is_that_of_the_java_client(key: bytes, hashed: int, partition: int) -> None:
    assert murmur2(key) == hashed % 2**32
    assert partition_by("murmur2", 8)(key) == partition


@pytest.mark.parametrize(("key", "checksum"), LIBRDKAFKA)
def test_crc32_is_that_of_librdkafka(key: bytes, checksum: int) -> None:
    assert partition_by("crc32", 17)(key) == checksum % 17


def test_keys_of_every_length_are_hashed_as_java_does() -> None:
    # Java's Utils.murmur2 over these 256 keys, gathered as h * 31 + hash in 64 bits.
    gathered = 0
    for size in range(256):
        key = bytes((size * 31 + at * 17 + at * at % 251) & 255 for at in range(size))
        gathered = (gathered * 31 + murmur2(key)) % 2**64
    assert gathered == -2328633726425537371 % 2**64


@given(st.binary(max_size=600))
def test_murmur2_is_that_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_aiokafka(key)


def test_each_number_of_partitions_has_partitions_of_its_own() -> None:
    keys = [b"acct-%d" % number for number in range(1000)]
    for partitions in (1, 3, 8):
        for partition in (partition_by("murmur2", partitions), partition_by("crc32", partitions)):
            found = list(map(partition, keys))
            assert set(found) == set(range(partitions))
            assert found == list(map(partition, keys))  # remembered ones too

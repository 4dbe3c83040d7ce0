"""HyperLogLog in plain Python: the hash, the registers and Ertl's estimate, straight from the papers."""

from __future__ import annotations

import math
import struct
from collections import Counter


def splitmix(value: float) -> int:
    """Hash in plain Python: the first number of splitmix64 whose seed are the value's bits."""
    z = struct.unpack("<Q", struct.pack("<d", 0.0 if value == 0 else value))[0] + 0x9E3779B97F4A7C15 & 2**64 - 1
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return int(z ^ z >> 31)


def reference_registers(precision: int, values: list[float]) -> bytes:
    """HyperLogLog as the paper tells it, over the digits of the hash."""
    registers = bytearray(1 << precision)
    for value in values:
        digits = f"{splitmix(value):064b}"
        rest, register = digits[:-precision], int(digits[-precision:], 2)
        rank = len(rest) - len(rest.rstrip("0")) + 1
        registers[register] = max(registers[register], rank)
    return bytes(registers)


def reference_count(precision: int, registers: bytes) -> float:
    """Ertl's algorithm 6 over a histogram of the registers, with sums in place of his loops."""
    m, q, histogram = 1 << precision, 64 - precision, Counter(registers)
    empty, full = histogram[0] / m, 1 - histogram[q + 1] / m
    if empty == 1:
        return 0.0
    sigma = empty + math.fsum(empty ** (2.0**k) * 2.0 ** (k - 1) for k in range(1, 60))
    tau = (1 - full - math.fsum((1 - full ** (2.0**-k)) ** 2 * 2.0**-k for k in range(1, 60))) / 3 if full else 0.0
    z = m * tau
    for k in range(q, 0, -1):
        z = (z + histogram[k]) / 2
    return m * m / (2 * math.log(2)) / (z + m * sigma)

"""Plain records read by kernels: whatever is done to a record, it becomes what the careful way alone makes of it."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumers.inlet_raw import RecordInlet
from consumers.inlet_together import MOST_RECORDS, decode_together
from streams import frames
from streams.decoding import Bad
from streams.pipeline import Events, Field, Pipeline
from streams.records import HeldRecords, Record
from streams.tables import Table
from tests.records import NOW_US
from tests.rows import events, labels, pipeline

FLAT = (
    Field("amount", "number", ("amount",)),
    Field("shop", "category", ("shop",)),
    Field("is_new", "boolean", ("is_new",)),
    Field("size", "number", ("größe",)),
    Field("name", "category", ("id",)),
    Field("long_name", "category", ("a_name_of_more_than_eight_bytes",)),
)
NUMBERS = [
    "0", "-0", "-0.0", "0.0", "0e0", "00", "01", "0123", "-01", "1.", ".5", "-", "-.5", "+1", "1e", "1e+", "1E5",
    "1e-5", "1.5e3", "1e22", "1e23", "1e-22", "1e-23", "1e308", "1e309", "1e999", "-1e999", "1e-999",
    "1e0000000000000000001", "9007199254740992", "9007199254740993", "-9007199254740993", "9007199254740993.0", "0.1",
    "0.30000000000000004", "123456789012345678", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "18446744073709551615", "18446744073709551616", "99999999999999999999", "1" + "0" * 40, "0." + "0" * 30 + "1",
    "1.7976931348623157e308", "4.9e-324", "NaN", "Infinity", "-Infinity", "nan", "1_000", "0x10", "1 2", "1.5.5",
    "1e5.5", "2.5", "7", "1", "0", "1700000000", "1700000000.25", "1700000000000", "1700000000000000",
    "1700000000000000001", "-1", "253402300800", "-62135596801", "253402300799", "1.7e9", "17e8", "1.7e15",
]  # fmt: skip
OTHERS = [
    "true", "false", "null", "True", "tru", "nul", "nulll", "truefalse", "[]", "{}", "[1]", '{"a":1}', "[[", '"', '""',
    '"a"', '"\\""', '"\\u0061"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\\u12"', '"a\tb"', '"a\nb"', '"\x7f"',
    '"é"', '"ß"', '"日本"', '"😀"', '"\u2028"', '"' + "x" * 1_024 + '"', '"' + "x" * 1_025 + '"', '"' + "é" * 512 + '"',
    '"' + "é" * 513 + '"', '"1"', '"true"', '"2013-01-01T05:17:00Z"', '"2013-13-01T00:00:00Z"',
    '"2013-01-01T05:17:00.123456789+02:00"', "", "'a'", "undefined", "\x00", "/**/1",
]  # fmt: skip
BYTES = [
    b"\xff", b"\xc0\xaf", b"\xc3", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x80\x80\xaf",
    b"\xe0\x80\xaf", b"\xf0\x9f\x98\x80", b"\xc3\xa9", b"\xef\xbb\xbf", b"\x00", b"\x1f", b" ", b"\t\r\n ", b"\x0b",
    b"\xc2\xa0", b"\\", b'"', b",", b",,", b":", b"{", b"}", b"[", b"]", b"e", b".", b"-", b"0", b"\x7f", b"\x80",
]  # fmt: skip
SIZES = [1, 1, 2, 5, MOST_RECORDS + 1]  # of a poll
SPACES = [b"", b"", b" ", b"\n", b"\t", b"\r\n", b"  ", b"\x0c", b"\xc2\xa0"]


def desk(declared: Pipeline, kind: str, source: int = 5) -> tuple[RecordInlet, list[tuple[int, Bad]]]:
    """An inlet of one raw partition, and what it buries."""
    dead: list[tuple[int, Bad]] = []
    inlet = RecordInlet(
        declared, "t", 0, {kind: source}, frames.log_schema(declared), lambda _, i, why: dead.append((i, why))
    )
    return inlet, dead


def columns(table: Table) -> dict[str, Any]:
    """Every column bit for bit."""
    batch = table.to_arrow()
    found: dict[str, Any] = {}
    for field in batch.schema:
        column = batch.column(field.name)
        is_text = field.type == pa.string()
        found[field.name] = column.to_pylist() if is_text else np.asarray(column).tobytes()
    return found


def check(declared: Pipeline, kind: str, payloads: list[bytes | None]) -> int:
    """Decode records both ways, in polls of different sizes; gives how many went the quick way."""
    quick, dead = desk(declared, kind)
    careful, expected_dead = desk(declared, kind)
    careful._reader = None
    reader = quick._reader
    assert reader is not None
    start, taken, rng = 0, 0, random.Random(1)
    while start < len(payloads):
        part = payloads[start : start + rng.choice([1, 3, 100, 3_000])]
        records = HeldRecords("t", 0, [Record(value, start + i, NOW_US) for i, value in enumerate(part)])
        found, expected = quick.decode(records), careful.decode(records)
        dead_now, expected_now = dict(dead), dict(expected_dead)
        assert dead == expected_dead, [part[i] for i in dead_now.keys() ^ expected_now.keys()]
        assert found.offsets.tolist() == expected.offsets.tolist()
        assert found.stamps.tolist() == expected.stamps.tolist()
        if columns(found.rows) != columns(expected.rows):
            differ = [
                i
                for i in range(found.rows.num_rows)
                if columns(found.rows.slice(i, 1)) != columns(expected.rows.slice(i, 1))
            ]
            raise AssertionError([part[found.offsets[i] - start] for i in differ])
        assert (quick.records, quick.ignored, quick.dead, quick.taken) == (
            careful.records, careful.ignored, careful.dead, careful.taken
        )  # fmt: skip
        assert (quick.largest_time, quick.largest_stamp) == (careful.largest_time, careful.largest_stamp)
        dead.clear()
        expected_dead.clear()
        taken += reader.read(records).rows
        start += len(part)
    return taken


class Mutator:
    """Makes good records, and spoils some of them."""

    def __init__(self, seed: int, names: list[str], time: str) -> None:
        self.rng = random.Random(seed)
        self.names = names
        self.time = time

    def good(self) -> dict[str, str]:
        """Names and their values as JSON."""
        rng = self.rng
        made = {
            "id": f'"e{rng.randrange(10 ** rng.randint(1, 12))}"',
            "key": f'"k{rng.randrange(100)}"',
            "at": self.time,
            "amount": rng.choice(
                ["null", repr(rng.randrange(10**6) / 100), repr(rng.random()), str(rng.randrange(99))]
            ),
            "shop": rng.choice(['"a"', '"bäcker"', '""', "null", '"north street 12"', '"日本"'] * 5 + ["7"]),
            "is_new": rng.choice(["true", "false", "null"]),
            "größe": rng.choice(["1", "2.5", "-3.25"]),
            "a_name_of_more_than_eight_bytes": rng.choice(['"yes"', '"no"']),
            "y": rng.choice(["0", "1", "true", "false", "null", "1.0", "0.0"]),
        }
        return {name: made[name] for name in self.names if rng.random() < 0.99}

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values, some of them odd, doubled, unknown or out of order."""
        rng, pairs = self.rng, list(self.good().items())
        if rng.random() < 0.3:
            pairs.insert(
                rng.randint(0, len(pairs)), (rng.choice(["other", "i", "ids", "", "é", "x\\u0041"]), self.odd())
            )
        if rng.random() < 0.1:
            pairs.insert(rng.randint(0, len(pairs)), (rng.choice(self.names), self.odd()))
        if rng.random() < 0.05 and pairs:
            pairs.append(rng.choice(pairs))
        if rng.random() < 0.1:
            rng.shuffle(pairs)
        if rng.random() < 0.3 and pairs:
            place = rng.randrange(len(pairs))
            pairs[place] = (pairs[place][0], self.odd())
        return pairs

    def odd(self) -> str:
        """A value that may be anything."""
        return self.rng.choice(NUMBERS if self.rng.random() < 0.6 else OTHERS)

    def payload(self) -> bytes | None:
        """One record."""
        rng = self.rng

        def space() -> bytes:
            return rng.choice(SPACES) if rng.random() < 0.03 else b""

        parts = [
            space() + b'"' + name.encode() + b'"' + space() + b":" + space() + value.encode() + space()
            for name, value in self.pairs()
        ]
        made = space() + b"{" + b",".join(parts) + b"}" + space()
        luck = rng.random()
        if luck < 0.07:
            place = rng.randrange(len(made))
            made = made[:place] + bytes([made[place] ^ (1 << rng.randrange(8))]) + made[place + 1 :]
        elif luck < 0.14:
            made = made[: rng.randint(0, len(made))]
        elif luck < 0.21:
            place = rng.randint(0, len(made))
            made = made[:place] + rng.choice(BYTES) + made[place + rng.randint(0, 2) :]
        elif luck < 0.22:
            return None
        elif luck < 0.23:
            made += b" " * rng.choice([65_536, 65_536 - len(made), 65_537 - len(made)])
        return made


def event_names(declared: Events) -> list[str]:
    """What a record of these events holds."""
    paths = [declared.id, declared.key, declared.time, *(field.path for field in declared.fields)]
    return list(dict.fromkeys(path[0] for path in paths if path))


@pytest.mark.parametrize(
    ("unit", "time"),
    [
        ("us", "1700000000000000"),
        ("ns", "1700000000000000001"),
        ("ms", "1700000000000"),
        ("s", "1700000000.25"),
        ("rfc3339", '"2023-11-14T22:13:20.5Z"'),
    ],
)
def test_mutated_events_become_what_the_careful_way_makes_of_them(unit: Any, time: str) -> None:
    """The same rows bit for bit, and the same reasons for those refused."""
    declared = pipeline(events=events(fields=FLAT, time_unit=unit))
    mutator = Mutator(7, event_names(declared.events), time)
    payloads = [mutator.payload() for _ in range(6_000)]

    assert check(declared, "events", payloads) > 1_500


def test_mutated_labels_become_what_the_careful_way_makes_of_them() -> None:
    """As with events."""
    declared = pipeline(labels=labels())
    mutator = Mutator(8, ["id", "key", "at", "y"], "1700000000000000")
    payloads = [mutator.payload() for _ in range(6_000)]

    assert check(declared, "labels", payloads) > 1_500


def test_without_declared_id_key_and_time_the_record_itself_gives_them() -> None:
    """On both ways."""
    declared = pipeline(events=events(fields=FLAT[:4], id=None, key=None, time=None))
    mutator = Mutator(9, event_names(declared.events), "1")

    assert check(declared, "events", [mutator.payload() for _ in range(2_000)]) > 500


@pytest.mark.parametrize("kind", ["amount", "at", "other", "shop", "is_new"])
def test_every_odd_value_in_every_place(kind: str) -> None:
    """At the end of a record and before its end."""
    declared = pipeline(events=events(fields=FLAT))
    rest = {"id": "e", "key": "k", "at": 5, "other": 0}
    head = json.dumps({name: value for name, value in rest.items() if name != kind})[:-1].encode()
    values = [value.encode() for value in NUMBERS + OTHERS] + [b'"' + part + b'"' for part in BYTES] + BYTES
    payloads: list[bytes | None] = [head + b', "' + kind.encode() + b'": ' + value + b"}" for value in values]
    payloads += [b'{"' + kind.encode() + b'":' + value + b"," + head[1:] + b"}" for value in values]

    assert check(declared, "events", payloads) > 0


def test_numbers_are_the_nearest_doubles() -> None:
    """Digits, decimals and exponents around what the quick way dares."""
    rng, declared = random.Random(3), pipeline(events=events(fields=FLAT))
    texts = [repr(struct.unpack("<d", rng.randbytes(8))[0]) for _ in range(1_500)]
    for _ in range(4_500):
        digits = str(rng.randrange(10 ** rng.randint(1, 20)))
        place = rng.randint(0, len(digits))
        text = digits[:place] + ("." + digits[place:] if rng.random() < 0.7 else "")
        texts.append(text + (f"e{rng.randint(-30, 30)}" if rng.random() < 0.4 else ""))
    payloads: list[bytes | None] = [f'{{"id":"e","key":"k","at":5,"amount":{text}}}'.encode() for text in texts]

    assert check(declared, "events", payloads) > 1_500


def test_good_records_go_the_quick_way() -> None:
    """All of them, in whatever order their names come, with text of any language."""
    declared = pipeline(events=events(fields=FLAT))
    rng = random.Random(2)
    values = {
        "id": "e1",
        "key": "日本",
        "at": NOW_US,
        "amount": 1.25,
        "shop": None,
        "größe": 3,
        "other": "ü",
        "z": False,
    }
    payloads: list[bytes | None] = []
    for _ in range(200):
        names = rng.sample(list(values), len(values))
        payloads.append(
            json.dumps({n: values[n] for n in names}, ensure_ascii=False, indent=rng.choice([None, 1])).encode()
        )

    assert check(declared, "events", payloads) == len(payloads)


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": (Field("miles", "number", ("route", "miles")),)},
        {"fields": (Field("time", "number", ("at",)),)},
    ],
)
def test_what_kernels_cannot_read_goes_the_careful_way_wholly(changes: dict[str, Any]) -> None:
    """Tables inside, a name wanted as two things."""
    declared = pipeline(events=events(**changes))

    assert desk(declared, "events")[0]._reader is None


def test_partitions_decoded_together_give_what_each_gives_alone() -> None:
    """Whether all of a partition's records are plain, some, or none."""
    rng, declared = random.Random(4), pipeline(events=events(fields=FLAT))
    mutator = Mutator(4, event_names(declared.events), "1700000000000000")
    plain = b'{"id":"e1","key":"k","at":1700000000000000,"shop":"a","amount":1.5}'
    together, alone = ([desk(declared, "events", source) for source in range(4)] for _ in range(2))
    for turn in range(100):
        odd = rng.choice([0.0, 0.05, 1.0])
        values = [[mutator.payload() if rng.random() < odd else plain for _ in range(rng.choice(SIZES))] for _ in alone]
        parts = [
            HeldRecords("t", place, [Record(v, 1_000 * turn + i, NOW_US + i) for i, v in enumerate(own)])
            for place, own in enumerate(values)
        ]
        found = decode_together([(inlet, part) for (inlet, _), part in zip(together, parts, strict=True)])
        for own, (inlet, dead), (other, other_dead), part in zip(found, together, alone, parts, strict=True):
            expected = other.decode(part)

            assert columns(own.rows) == columns(expected.rows)
            assert own.offsets.tolist() == expected.offsets.tolist()
            assert own.stamps.tolist() == expected.stamps.tolist()
            assert dead == other_dead
            assert (inlet.records, inlet.dead, inlet.taken) == (other.records, other.dead, other.taken)
            assert (inlet.largest_time, inlet.largest_stamp) == (other.largest_time, other.largest_stamp)

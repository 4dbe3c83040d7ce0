"""What Redis runs to write keys: the script, and the commands that call it, rendered many at once by a kernel.

A call takes up to 64 keys: twice as many keys a second as with a call for each, and other clients wait for half a
millisecond at most. Protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving.key_rows import KeyRows, newest
from streams.compiled import bare, inlined
from streams.event_numbers import MANY
from streams.intrinsics import store_8
from streams.memory import address_of
from streams.records import pack
from streams.rendering import (
    FLOAT_SIZE,
    INTEGER_SIZE,
    SLACK,
    aligned,
    write_bytes,
    write_digits,
    write_float,
    write_integer,
    write_words,
)

KEYS_A_CALL = 64
ARGUMENTS_A_KEY = 5  # generation, number, time_us, prediction, features

SCRIPT = """\
-- KEYS: hashes of a pipeline. ARGV: the time to live in ms, the id of the topic that numbers the rows; then for each
-- key generation, number, time_us, prediction and features. A key that holds a larger (generation, number) of the same
-- topic is left alone, as is one that holds no hash. A topic that was made anew numbers its rows anew.
local written, older = 0, 0
for i, key in ipairs(KEYS) do
  local at = 5 * i - 2
  local held = redis.pcall('HMGET', key, 'topic_id', 'generation', 'number')
  if not held.err then
    local generation, number = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local held_generation, held_number = tonumber(held[2] or -1) or -1, tonumber(held[3] or -1) or -1
    if held[1] ~= ARGV[2] or generation > held_generation
        or (generation == held_generation and number >= held_number) then
      redis.call('HSET', key, 'topic_id', ARGV[2], 'generation', ARGV[at], 'number', ARGV[at + 1],
        'time_us', ARGV[at + 2], 'prediction', ARGV[at + 3], 'features', ARGV[at + 4])
      redis.call('PEXPIRE', key, ARGV[1])
      written = written + 1
    else
      older = older + 1
    end
  end
end
return {written, older}
"""
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # by which Redis knows it

_DOLLAR, _STAR, _CR, _LF = b"$*\r\n"
_FRAMING = 1 + INTEGER_SIZE + 4  # bytes around an argument at most: $, its size, two line ends

Int64s = npt.NDArray[np.int64]


class Written(NamedTuple):
    """What the script did with the rows of a batch."""

    written: int
    older: int  # the store had newer ones
    foreign: int  # their keys hold something that is not ours


class Form(NamedTuple):
    """What all calls of a pipeline have in common: pieces of text, each [start, size] in `data`.

    The pieces: the script's name, the arguments of all keys, the keys' prefix; then what stands before each feature's
    value and behind the last.
    """

    data: npt.NDArray[np.uint8]
    pieces: Int64s  # [3 + F + 1, 2]

    @property
    def row_bytes(self) -> int:
        """What a row takes at most beside its key and answer."""
        arguments = (1 + ARGUMENTS_A_KEY) * _FRAMING + 3 * INTEGER_SIZE
        return int(self.pieces[2:, 1].sum()) + FLOAT_SIZE * (len(self.pieces) - 4) + arguments


def key_prefix(pipeline: str) -> str:
    """Give what stands before a key of a pipeline in Redis."""
    return f"{pipeline}:key:"


def form_of(pipeline: str, columns: Sequence[str], ttl_ms: int, topic_id: str) -> Form:
    """Render what the calls of a pipeline share; `columns` names the features, `topic_id` is that of their topic."""
    names = [msgspec.json.encode(name) + b":" for name in columns]
    pieces = [
        _arguments("EVALSHA", DIGEST),
        _arguments(str(ttl_ms), topic_id),
        key_prefix(pipeline).encode(),
        *((b"," if place else b"{") + name for place, name in enumerate(names)),
        b"}" if names else b"{}",
    ]
    return Form(*aligned(pieces))


def _arguments(*texts: str) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(text), text.encode()) for text in texts)


def render_calls(rows: KeyRows, form: Form) -> tuple[memoryview, int]:
    """Give the bytes of the calls that write these rows, and how many calls they are; about 1 us a row."""
    calls = -(-rows.size // KEYS_A_CALL)
    texts = sum(int(packed.offsets[-1] - packed.offsets[0]) for packed in (rows.keys, rows.answers))
    shared = int(form.pieces[:2, 1].sum()) + 3 * _FRAMING
    out = np.empty(texts + rows.size * form.row_bytes + calls * shared + SLACK, np.uint8)
    scratch = np.empty(form.row_bytes + SLACK, np.uint8)
    vectors_BF = rows.vectors_BF
    if vectors_BF.flags.writeable:
        vectors_BF = vectors_BF.view()
        vectors_BF.flags.writeable = False  # another type of array compiles another kernel
    end = calls_kernel(
        address_of(rows.keys.data),
        rows.keys.offsets,
        address_of(rows.answers.data),
        rows.answers.offsets,
        rows.names,
        rows.times,
        vectors_BF,
        address_of(form.data),
        form.pieces,
        address_of(scratch),
        address_of(out),
    )
    return out[: end - address_of(out)].data, calls


def warm(form: Form) -> None:
    """Load the kernels with made-up rows, so that nothing waits for them later."""
    numbers = np.arange(3, dtype=np.int64)
    made = KeyRows(pack([b"a", b"b", b"a"]), pack([b"{}"] * 3), numbers, numbers, np.zeros((3, len(form.pieces) - 4)))
    render_calls(newest([made]), form)


@inlined
def _write_argument(at: int, source: int, size: int) -> int:
    """Write one argument of a call."""
    store_8(at, _DOLLAR)
    at = _write_line_end(write_digits(at + 1, size))
    return _write_line_end(write_bytes(at, source, size))


@inlined
def _write_line_end(at: int) -> int:
    store_8(at, _CR)
    store_8(at + 1, _LF)
    return at + 2


@bare
def calls_kernel(
    keys_at: int,
    keys: Int64s,
    answers_at: int,
    answers: Int64s,
    names: Int64s,
    times: Int64s,
    vectors_BF: npt.NDArray[np.float64],
    form_at: int,
    pieces: Int64s,
    scratch: int,
    at: int,
) -> int:
    """Write the calls for all rows; `keys` and `answers` are offsets. Gives the address behind them."""
    script, shared, prefix = form_at + pieces[0, 0], form_at + pieces[1, 0], form_at + pieces[2, 0]
    columns = vectors_BF.shape[1]
    for first in range(0, names.size, KEYS_A_CALL):
        stop = min(first + KEYS_A_CALL, names.size)
        store_8(at, _STAR)
        at = _write_line_end(write_digits(at + 1, 5 + (1 + ARGUMENTS_A_KEY) * (stop - first)))
        at = write_words(at, script, pieces[0, 1])
        at = _write_argument(at, scratch, write_digits(scratch, stop - first) - scratch)
        for i in range(first, stop):
            end = write_words(scratch, prefix, pieces[2, 1])
            store_8(at, _DOLLAR)
            size = keys[i + 1] - keys[i]
            at = _write_line_end(write_digits(at + 1, pieces[2, 1] + size))
            at = write_bytes(at, scratch, end - scratch)
            at = _write_line_end(write_bytes(at, keys_at + keys[i], size))
        at = write_words(at, shared, pieces[1, 1])
        for i in range(first, stop):
            generation = names[i] // MANY
            at = _write_argument(at, scratch, write_digits(scratch, generation) - scratch)
            at = _write_argument(at, scratch, write_digits(scratch, names[i] - generation * MANY) - scratch)
            at = _write_argument(at, scratch, write_integer(scratch, times[i]) - scratch)
            at = _write_argument(at, answers_at + answers[i], answers[i + 1] - answers[i])
            end = scratch
            for column in range(columns):
                end = write_words(end, form_at + pieces[3 + column, 0], pieces[3 + column, 1])
                end = write_float(end, vectors_BF[i, column])
            end = write_words(end, form_at + pieces[3 + columns, 0], pieces[3 + columns, 1])
            at = _write_argument(at, scratch, end - scratch)
    return at

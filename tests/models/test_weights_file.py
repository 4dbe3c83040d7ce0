"""Files of weights come back equal, are the same bytes again, and are refused when damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from models.learner import State
from models.weights_file import decode, encode
from streams.errors import ModelError

STATE: State = {
    "network.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not in C order
    "preparation.mean": np.array([0.1, np.inf, np.nan]),
    "preparation.codes": np.array([2**53 - 1, 0]),
    "preparation.is_holed": np.array([True, False]),
    "empty": np.empty((0, 4), np.float32),
    "number": np.array(3.5),
    "sealed": np.frombuffer(b"abc", np.uint8),
}
TEXTS = {"candidate": "net", "epoch": "7", "Ä": "ö\n"}


def test_arrays_and_texts_come_back_equal_and_can_be_written_to() -> None:
    state, texts = decode(encode(STATE, TEXTS))

    assert texts == TEXTS
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype
        assert np.array_equal(state[name], array, equal_nan=array.dtype.kind == "f")
        assert state[name].flags.writeable


def test_the_same_arrays_are_the_same_bytes_whatever_the_order_they_are_given_in() -> None:
    turned = {name: STATE[name] for name in reversed(STATE)}, {name: TEXTS[name] for name in reversed(TEXTS)}

    assert encode(*turned) == encode(STATE, TEXTS)


def test_any_reader_of_the_format_reads_the_file(tmp_path: object) -> None:
    path = f"{tmp_path}/model.safetensors"
    with open(path, "wb") as file:  # noqa: PTH123  # as another program would
        file.write(encode(STATE, TEXTS))
    with safe_open(path, "np") as found:
        assert np.array_equal(found.get_tensor("network.0.weight"), STATE["network.0.weight"])
        assert json.loads(found.metadata()["millrace"]) == TEXTS


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1, -30])
def test_a_file_that_was_cut_is_refused_in_one_line(kept: int) -> None:
    payload = encode(STATE, TEXTS)
    with pytest.raises(ModelError, match=r"a file of weights is not whole: \d+ bytes found") as caught:
        decode(payload[:kept])

    assert "\n" not in str(caught.value)


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_header_is_refused_or_shows_as_other_arrays_never_as_a_crash(place: int, bit: int) -> None:
    payload = bytearray(encode(STATE, TEXTS))
    payload[place] ^= 1 << bit
    try:
        state, texts = decode(bytes(payload))
    except ModelError:
        return

    assert state.keys() != STATE.keys() or texts != TEXTS or encode(state, texts) != encode(STATE, TEXTS) or place > 8


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not a file of weights",
        save({"x": np.zeros(1)}),
        save({"x": np.zeros(1)}, {"millrace": "no json"}),
        save({"x": np.zeros(1)}, {"millrace": "[1]"}),
        save({"x": np.zeros(1)}, {"millrace": '{"a": 1}'}),
        save({"x": np.zeros(1, np.float16)}, {"millrace": "{}"}),
    ],
)
def test_a_file_of_another_writer_is_refused(payload: bytes) -> None:
    with pytest.raises(ModelError, match="not whole"):
        decode(payload)

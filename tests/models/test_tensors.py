"""Batches for training: the same rows in the same order, whoever asks, and however many share them."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import tensors
from models.preparation import Preparation
from models.prepared_rows import PreparedRows, prepare_rows
from models.tensors import BLOCK_ROWS, Batch, Batches, shuffled
from streams.frames import Column
from streams.pipeline import Model
from streams.scratch import Scratch

COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False))


def numbered(rows: int) -> PreparedRows:
    """Give rows that tell which they are, in all three parts."""
    row = np.arange(rows)
    return PreparedRows(
        np.column_stack([row, -row]).astype(np.float32), row[:, None].astype(np.int32), row.astype(np.float32)
    )


def rows_in(batch: Batch) -> list[int]:
    """Name the rows of a batch; its three parts must agree."""
    rows = batch.target_B.long().tolist()

    assert batch.numbers_BN.tolist() == [[row, -row] for row in rows]
    assert batch.categories_BC.tolist() == [[row] for row in rows]
    assert [part.dtype for part in batch[:3]] == [torch.float32, torch.int32, torch.float32]
    return rows


def test_an_epoch_has_each_row_once_in_an_order_of_its_own() -> None:
    """Every epoch another one; the same in each run."""
    batches = Batches(numbered(1_000), 64, seed=3)
    epochs = [[rows_in(batch) for batch in batches.epoch(epoch)] for epoch in (0, 1, 0)]
    flat = [[row for batch in epoch for row in batch] for epoch in epochs]

    assert [len(batch) for batch in epochs[0]] == [64] * 15 + [40]
    assert sorted(flat[0]) == sorted(flat[1]) == list(range(1_000))
    assert flat[0] == flat[2] != flat[1]
    assert epochs[0] != [rows_in(batch) for batch in Batches(numbered(1_000), 64, seed=4).epoch(0)]
    assert flat[0] == shuffled(1_000, 3, 0).tolist()


@given(st.integers(0, 200), st.integers(1, 70), st.integers(1, 7), st.booleans())
def test_processes_together_see_what_one_alone_sees(rows: int, batch: int, world: int, is_training: bool) -> None:
    """Their shares, one behind the other, are each global batch; a short last one may leave some with nothing."""
    prepared = numbered(rows)

    def given(rank: int, world: int) -> list[Batch]:
        batches = Batches(prepared, batch, seed=5, rank=rank, world=world)
        return list(batches.epoch(2) if is_training else batches.in_order())

    alone, shares = given(0, 1), [given(rank, world) for rank in range(world)]

    assert {len(share) for share in shares} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]

        assert [row for part in parts for row in rows_in(part)] == rows_in(whole)
        assert {part.rows for part in parts} == {whole.rows} == {len(rows_in(whole))}
        assert max(len(part.target_B) for part in parts) <= -(-whole.rows // world)


def test_an_interrupted_epoch_goes_on_where_it_was() -> None:
    """A checkpoint has the step and nothing of the order."""
    batches = Batches(numbered(100), 8, seed=1)
    whole = [rows_in(batch) for batch in batches.epoch(4)]

    assert batches.steps == len(whole) == 13
    assert [rows_in(batch) for batch in Batches(numbered(100), 8, seed=1).epoch(4, first_step=5)] == whole[5:]
    assert list(batches.epoch(4, first_step=13)) == []


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS, 10 * BLOCK_ROWS + 3])
def test_blocks_of_neighbours_are_shuffled_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is there once, and those that are learned near each other lie in few blocks."""
    monkeypatch.setattr(tensors, "GROUP_BLOCKS", 2)
    order = shuffled(rows, 1, 0, BLOCK_ROWS)

    assert sorted(order.tolist()) == list(range(rows))
    if rows > BLOCK_ROWS:
        near = order[: BLOCK_ROWS + 1]

        assert len(set((near // BLOCK_ROWS).tolist())) == 2
        assert order.tolist() != shuffled(rows, 1, 1, BLOCK_ROWS).tolist()
        assert (np.diff(near) < 0).any()


def test_rows_that_are_many_are_read_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes there are."""
    monkeypatch.setattr(tensors, "SHUFFLED_BLOCKS_FROM_BYTES", 1_000)
    rows = 5 * BLOCK_ROWS
    found = [row for batch in Batches(numbered(rows), 100, seed=2).epoch(0) for row in rows_in(batch)]

    assert found == shuffled(rows, 2, 0, BLOCK_ROWS).tolist()
    assert found != shuffled(rows, 2, 0).tolist()


@pytest.mark.parametrize("smallest_bytes", [1, 1 << 40])
def test_rows_are_prepared_as_they_are_alone(tmp_path: Path, smallest_bytes: int) -> None:
    """In parts, in memory or in a file that has no name, in the order they were asked for."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=200_000), rng.integers(0, 50, 200_000), rng.normal(size=200_000)])
    X[rng.random(X.shape) < 0.1] = np.nan
    rows = rng.permutation(200_000)[:150_000]
    preparation = Preparation.fit(X, COLUMNS, Model("net", "torch:logistic", {}), rows)
    found = prepare_rows(X, rows, rows, preparation, Scratch(tmp_path, smallest_bytes))
    numbers, categories = preparation.apply(X[rows])

    assert np.array_equal(found.numbers_BN, numbers)
    assert np.array_equal(found.categories_BC, categories)
    assert np.array_equal(found.target_B, rows.astype(np.float32))
    assert list(tmp_path.iterdir()) == []
    assert len(list(Batches(found, 100_000).epoch(0))) == 2


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(tensors, extraglobs={"np": np}).failed == 0

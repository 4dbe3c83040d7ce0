"""The kernels of the online multi-layer perceptron (mlp.py): a row's way up, its gradient's way down.

Letters of shapes: B rows, N number columns, C category columns, O outputs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector
from models.linear_kernels import Indexes, Plan, Scratch, deviate, learn_scale, read_row, share
from models.mlp_net import Net, Room, Weights, add_to
from models.mlp_steps import move
from streams.compiled import bare, inlined
from streams.vector_sums import dot

MOST_DEVIATIONS = 10.0  # a scaled number is cut there: one absurd value must not throw every unit

Slots = npt.NDArray[np.int64]


@inlined
def _scale(weights: Weights, scratch: Scratch, room: Room) -> None:
    for j in range(scratch.number.size):
        x, deviation = scratch.number[j], scratch.deviation[j]
        scaled = (x - weights.mean[j]) / deviation if deviation > 0.0 else 0.0
        scaled = min(max(scaled, -MOST_DEVIATIONS), MOST_DEVIATIONS)
        room.value[j] = scaled if abs(x) <= MAX_MAGNITUDE else 0.0  # a missing number is as an average one


@inlined
def _note_active(value: Vector, active: Indexes, is_all: bool) -> int:
    """List the units that are not 0; give how many there are."""
    count = 0
    for i in range(value.size):
        active[count] = i
        count += 1 if is_all or value[i] != 0.0 else 0
    return count


@inlined
def _add_rows(below: Vector, active: Indexes, count: int, rows: Vector, to: Vector) -> None:
    """Add each active unit's row, as often as it is large; four at once, for that spares three ways to memory."""
    size = to.size
    for group in range(count // 4):
        a, b, c, d = active[4 * group], active[4 * group + 1], active[4 * group + 2], active[4 * group + 3]
        row_a, row_b = rows[a * size : (a + 1) * size], rows[b * size : (b + 1) * size]
        row_c, row_d = rows[c * size : (c + 1) * size], rows[d * size : (d + 1) * size]
        x_a, x_b, x_c, x_d = below[a], below[b], below[c], below[d]
        for k in range(size):
            to[k] = (((to[k] + x_a * row_a[k]) + x_b * row_b[k]) + x_c * row_c[k]) + x_d * row_d[k]
    for n in range(count - count % 4, count):
        i = active[n]
        add_to(below[i], rows[i * size : (i + 1) * size], to)


@inlined
def _forward(net: Net, weights: Weights, scratch: Scratch, room: Room) -> None:
    last = net.starts.size - 1
    for layer in range(last):
        below = room.value[net.places[layer] : net.places[layer + 1]]
        above = room.value[net.places[layer + 1] : net.places[layer + 2]]
        start = net.starts[layer]
        bias = weights.weight[start + below.size * above.size : start + (below.size + 1) * above.size]
        for k in range(above.size):
            above[k] = bias[k]
        for c in range(scratch.slot.size if layer == 0 else 0):
            if scratch.slot[c] >= 0:
                add_to(1.0, weights.table[scratch.slot[c]], above)
        active = room.active[net.places[layer] : net.places[layer + 1]]
        room.actives[layer] = _note_active(below, active, net.is_tanh)
        _add_rows(below, active, room.actives[layer], weights.weight[start:], above)
        if net.is_tanh:
            for k in range(above.size):
                above[k] = math.tanh(above[k])
        else:
            for k in range(above.size):
                above[k] = max(above[k], 0.0)
    below = room.value[net.places[last] : net.places[last + 1]]
    start, outputs = net.starts[last], room.score.size
    for o in range(outputs):
        row = weights.weight[start + o * below.size : start + (o + 1) * below.size]
        room.value[net.places[last + 1] + o] = dot(row, below) + weights.weight[start + outputs * below.size + o]


@inlined
def _say(net: Net, weights: Weights, room: Room) -> None:
    """Write the scores: the probability of yes, of each class, or the number."""
    score = room.score
    logit = room.value[net.places[net.starts.size] :]
    if net.is_number:
        score[0] = logit[0] * math.sqrt(weights.label[2]) + weights.label[1]
    elif score.size == 1:
        score[0] = 1.0 / (1.0 + math.exp(-logit[0]))
    else:
        share(logit, score)


@inlined
def _learn_label(weights: Weights, y: float) -> float:
    """Learn a regression's label into its scale, and give it on that scale."""
    seen, before = weights.label[0] + 1.0, weights.label[1]
    mean = before + (y - before) / seen
    weights.label[0], weights.label[1] = seen, mean
    weights.label[2] += ((y - before) * (y - mean) - weights.label[2]) / seen
    deviation = math.sqrt(weights.label[2])
    return (y - mean) / deviation if deviation > 0.0 else 0.0


@inlined
def _backward(net: Net, weights: Weights, room: Room, y: float) -> None:
    """Write the gradient of the loss by what each unit was given: log loss, or the squared error of a regression."""
    last, outputs = net.starts.size - 1, room.score.size
    logit, delta = room.value[net.places[last + 1] :], room.delta[net.places[last + 1] :]
    if net.is_number:
        target = _learn_label(weights, y)
        delta[0] = 2.0 * (logit[0] - target)
    else:
        _say(net, weights, room)
        for o in range(outputs):
            is_right = y > 0.5 if outputs == 1 else o == int(y)
            delta[o] = room.score[o] - (1.0 if is_right else 0.0)
    for layer in range(last, 0, -1):
        below = room.value[net.places[layer] : net.places[layer + 1]]
        down = room.delta[net.places[layer] : net.places[layer + 1]]
        up = room.delta[net.places[layer + 1] : net.places[layer + 2]]
        start = net.starts[layer]
        for i in range(below.size):
            down[i] = 0.0
        if layer == last:
            for o in range(outputs):
                add_to(up[o], weights.weight[start + o * below.size : start + (o + 1) * below.size], down)
        else:
            for n in range(room.actives[layer]):
                i = room.active[net.places[layer] + n]
                down[i] = dot(weights.weight[start + i * up.size : start + (i + 1) * up.size], up)
        for i in range(below.size):
            slope = 1.0 - below[i] * below[i] if net.is_tanh else 1.0
            down[i] = down[i] * slope if net.is_tanh or below[i] > 0.0 else 0.0


@bare
def step_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    net: Net,
    weights: Weights,
    scratch: Scratch,
    room: Room,
    now: Vector,
    score_BO: Matrix,
) -> None:
    """Run `MlpLearner.step`; 20 numbers, layers of 64 and 32: 0.45 us to predict, 1.25 us to learn a row."""
    deviate(weights, scratch)
    for i in range(action_B.size):
        is_learned = action_B[i] == LEARN and abs(y_B[i]) <= MAX_MAGNITUDE
        if action_B[i] != PREDICT and not is_learned:
            continue
        read_row(X_BF, i, plan, weights.table.shape[0], scratch)
        if is_learned:
            learn_scale(weights, scratch)
            deviate(weights, scratch)
        _scale(weights, scratch, room)
        _forward(net, weights, scratch, room)
        if is_learned:
            _backward(net, weights, room, y_B[i])
            move(net, weights, scratch, room, now)
        else:
            _say(net, weights, room)
            for o in range(room.score.size):
                score_BO[i, o] = room.score[o]


@bare
def inputs_kernel(
    X_BF: Matrix, plan: Plan, weights: Weights, scratch: Scratch, room: Room, z_BN: Matrix, slot_BC: Slots
) -> None:
    """Run `MlpLearner.inputs`."""
    deviate(weights, scratch)
    for i in range(z_BN.shape[0]):
        read_row(X_BF, i, plan, weights.table.shape[0], scratch)
        _scale(weights, scratch, room)
        for j in range(z_BN.shape[1]):
            z_BN[i, j] = room.value[j]
        for c in range(slot_BC.shape[1]):
            slot_BC[i, c] = scratch.slot[c]

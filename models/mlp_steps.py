"""How the online multi-layer perceptron (mlp.py) moves its weights: a clipped gradient's step, of SGD or of Adam.

Both are torch's (`torch.optim.SGD`, `torch.optim.Adam`, after `clip_grad_norm_`) for one row. A category's row in the
table moves only when the category comes, under Adam by the bias of all steps so far, as in `torch.optim.SparseAdam`.
"""

from __future__ import annotations

import math

from models.learner import Vector
from models.linear_kernels import Indexes, Scratch
from models.mlp_net import Net, Room, Weights, add_to
from streams.compiled import inlined
from streams.vector_sums import dot

SMALLEST_MOMENT = 1e-200  # below it a moment is 0: decaying for ever ends in subnormal numbers, 50 times as slow
CLIP_EPSILON = 1e-6  # torch's in clip_grad_norm_


@inlined
def _gradient_length(net: Net, scratch: Scratch, room: Room) -> float:
    """Give the length of the gradient by all weights; a layer's is an outer product, so its length needs no matrix."""
    total = 0.0
    for layer in range(net.starts.size):
        below = room.value[net.places[layer] : net.places[layer + 1]]
        up = room.delta[net.places[layer + 1] : net.places[layer + 2]]
        inputs = 1.0 + dot(below, below)
        for c in range(scratch.slot.size if layer == 0 else 0):
            inputs += _times(scratch.slot, c) ** 2
        total += inputs * dot(up, up)
    return math.sqrt(total)


@inlined
def _times(slot: Indexes, c: int) -> float:
    """Give how many categories lie where this one does; 0 for a missing one, and for all but the first of them."""
    times = 0.0
    for other in range(slot.size):
        if slot[other] == slot[c]:
            if other < c:
                return 0.0
            times += 1.0
    return times if slot[c] >= 0 else 0.0


@inlined
def _move_rows(below: Vector, active: Indexes, count: int, step: Vector, rows: Vector) -> None:
    """Move each active unit's row by the step, as far as it is large; two at once."""
    size = step.size
    for group in range(count // 2):
        a, b = active[2 * group], active[2 * group + 1]
        row_a, row_b = rows[a * size : (a + 1) * size], rows[b * size : (b + 1) * size]
        x_a, x_b = below[a], below[b]
        for k in range(size):
            row_a[k] += x_a * step[k]
            row_b[k] += x_b * step[k]
    for n in range(count - count % 2, count):
        i = active[n]
        add_to(below[i], step, rows[i * size : (i + 1) * size])


@inlined
def _descend(net: Net, weights: Weights, scratch: Scratch, room: Room, factor: float) -> None:
    """Take a step of SGD; `factor` is the rate times what clipping leaves of the gradient."""
    last = net.starts.size - 1
    for layer in range(last + 1):
        below = room.value[net.places[layer] : net.places[layer + 1]]
        up = room.delta[net.places[layer + 1] : net.places[layer + 2]]
        start = net.starts[layer]
        for k in range(up.size):
            up[k] *= -factor
        add_to(1.0, up, weights.weight[start + below.size * up.size : start + (below.size + 1) * up.size])
        if layer == last:
            for o in range(up.size):
                add_to(up[o], below, weights.weight[start + o * below.size : start + (o + 1) * below.size])
        else:
            active = room.active[net.places[layer] : net.places[layer + 1]]
            _move_rows(below, active, room.actives[layer], up, weights.weight[start:])
        for c in range(scratch.slot.size if layer == 0 else 0):
            if scratch.slot[c] >= 0:
                add_to(1.0, up, weights.table[scratch.slot[c]])


@inlined
def _adam(factor: float, gradient: Vector, weight: Vector, first: Vector, second: Vector, now: Vector) -> None:
    """Move a row of weights as torch's Adam; `now` is [lr over bias, root of bias, beta_1, beta_2, eps]."""
    size, root, beta_1, beta_2, eps = now[0], now[1], now[2], now[3], now[4]
    for k in range(weight.size):
        slope = factor * gradient[k]
        moment = first[k] + (slope - first[k]) * (1.0 - beta_1)
        square = second[k] * beta_2 + (1.0 - beta_2) * slope * slope
        first[k] = moment if abs(moment) > SMALLEST_MOMENT else 0.0
        second[k] = square if square > SMALLEST_MOMENT else 0.0
        weight[k] -= size * moment / (math.sqrt(square) * root + eps)


@inlined
def _adapt(net: Net, weights: Weights, scratch: Scratch, room: Room, kept: float, now: Vector) -> None:
    """Take a step of Adam; `kept` is what clipping leaves of the gradient."""
    last = net.starts.size - 1
    steps, lr, beta_1, beta_2 = weights.steps[0], net.rates[0], net.rates[2], net.rates[3]
    now[0] = lr / (1.0 - beta_1**steps)
    now[1] = 1.0 / math.sqrt(1.0 - beta_2**steps)
    now[2], now[3], now[4] = beta_1, beta_2, net.rates[4]
    for layer in range(last + 1):
        below = room.value[net.places[layer] : net.places[layer + 1]]
        up = room.delta[net.places[layer + 1] : net.places[layer + 2]]
        is_last = layer == last
        slope, factor = (below, up) if is_last else (up, below)
        start = net.starts[layer]
        for k in range(up.size):
            up[k] *= kept
        for i in range(factor.size):
            a, b = start + i * slope.size, start + (i + 1) * slope.size
            _adam(factor[i], slope, weights.weight[a:b], weights.first[a:b], weights.second[a:b], now)
        a, b = start + below.size * up.size, start + (below.size + 1) * up.size
        _adam(1.0, up, weights.weight[a:b], weights.first[a:b], weights.second[a:b], now)
        for c in range(scratch.slot.size if layer == 0 else 0):
            times, slot = _times(scratch.slot, c), scratch.slot[c]
            if times > 0.0:
                _adam(times, up, weights.table[slot], weights.table_first[slot], weights.table_second[slot], now)


@inlined
def move(net: Net, weights: Weights, scratch: Scratch, room: Room, now: Vector) -> None:
    """Take the step of a row whose gradient is known; `now` has room for Adam's rates at this step."""
    length, clip = _gradient_length(net, scratch, room), net.rates[1]
    kept = min(clip / (length + CLIP_EPSILON), 1.0)
    weights.steps[0] += 1.0
    if net.is_adam:
        _adapt(net, weights, scratch, room, kept, now)
    else:
        _descend(net, weights, scratch, room, net.rates[0] * kept)

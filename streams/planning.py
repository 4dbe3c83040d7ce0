"""Planning: from a pipeline's declared features to the plan that kernels follow (plan.py)."""

from __future__ import annotations

import numpy as np

from streams.computed_steps import Step, category_number, computed_step, window_numbers
from streams.expressions import parse
from streams.features import columns
from streams.meanings import Meanings, WindowKey
from streams.outline import EXACT_ROWS, FIRST_LIST, Beginnings, Declared, Outline
from streams.outlining import Drawn, draw
from streams.pipeline import Feature, Pipeline
from streams.plan import (
    BINS,
    BOUND_WORDS,
    CALENDAR,
    COSINE,
    COUNT,
    DEVIATION,
    DISTINCT,
    ELAPSED,
    EVERY_ROW,
    EXACT_WORDS,
    FIRST_WINDOW_WORD,
    FREQUENCY,
    HASH,
    HEAD,
    LEAST,
    MAXIMUM,
    MEAN,
    MINIMUM,
    MOMENTS,
    MOST,
    ONE_HOT,
    QUANTILE,
    RAW,
    REGISTERS,
    SINE,
    SUM,
    TARGET,
    TRAIL,
    TRAIL_LAG,
    TRAIL_LAST,
    TRAIL_WEIGHTS,
    WEIGHTS_WORDS,
    WINDOW_WORDS,
    FeaturePlan,
    Filtered,
    Plan,
)
from streams.stages import StageSpec, stage_specs
from streams.window_lanes import EXTRAS, WindowLanes, extra_key

_EXTRA_OPERATIONS = {MINIMUM: LEAST, MAXIMUM: MOST, MOMENTS: DEVIATION, REGISTERS: DISTINCT, BINS: QUANTILE}
_TRAILS = {"last": TRAIL_LAST, "lag": TRAIL_LAG, "ewm_mean": TRAIL_WEIGHTS, "ewm_std": TRAIL_WEIGHTS}
PERIODS = {"hour": 0, "weekday": 1, "month": 2}  # of cyclic features, each from its start to its end in UTC
# Of calendar features: the period, and from where up to where in it they hold.
CALENDAR_PHASES = {"weekend": (PERIODS["weekday"], 5 / 7, 1.0), "night": (PERIODS["hour"], 0.0, 6 / 24)}

TrailKey = tuple[int, int, int, int, int]  # kind, field, places, span, since


def make_plan(pipeline: Pipeline, stage: int = 1, beginnings: Beginnings = FIRST_LIST) -> FeaturePlan:
    """Compile the features of one stage into the plan that the kernels follow.

    Args:
        pipeline: the pipeline.
        stage: the stage's number.
        beginnings: which features began with a change of the list; they share no state with older ones.
    """
    return _Planner(pipeline, stage_specs(pipeline)[stage - 1], beginnings).plan()


def _window_key(feature: Feature) -> WindowKey:
    return feature.window_us or 0, feature.delay_us if feature.is_label else None, feature.is_exact


class _Planner:
    """Numbers fields, lanes and trails, then writes a step for every column."""

    def __init__(self, pipeline: Pipeline, stage: StageSpec, beginnings: Beginnings) -> None:
        self._pipeline, self._stage, self._beginnings = pipeline, stage, beginnings
        self._is_raw = pipeline.raw_features and stage.number == 1
        kinds = {field.name: field.kind for field in pipeline.events.fields}
        conditions = {f.where: parse(f.where, kinds) for f in stage.features if f.where}
        read = {name for feature in stage.features for name in (feature.of, feature.other) if name}
        read |= {name for condition in conditions.values() for name in condition.fields}
        if stage.number == 1:  # what travels further is numbered here
            read |= {field.name for field in stage.carried}
        self._fields = tuple(f for f in pipeline.events.fields if self._is_raw or f.name in read)
        self._numbers = {field.name: number for number, field in enumerate(self._fields)}
        self._filtered: dict[tuple[int, str], Filtered] = {}
        for f in stage.features:
            if f.where:
                one = Filtered(self._numbers.get(f.of, EVERY_ROW), conditions[f.where])
                self._filtered.setdefault((one.field, f.where), one)
        self._windows: dict[WindowKey, WindowLanes] = {}
        self._exact: list[tuple[int, int]] = []  # field, since
        self._trails: dict[TrailKey, int] = {}  # → number
        self._meanings = Meanings(pipeline, self._fields, tuple(self._filtered.values()))
        for feature in stage.features:
            self._note(feature)
        self._windows = dict(sorted(self._windows.items(), key=lambda item: (item[0][2], item[0][1] is not None)))

    def _what(self, feature: Feature) -> int:
        """Give the number of what a feature is computed of, EVERY_ROW for all events; a label has no other fields."""
        if feature.is_label:
            return 0
        number = self._numbers.get(feature.of, EVERY_ROW)
        if feature.where:
            number = len(self._fields) + list(self._filtered).index((number, feature.where))
        return self._exact_place((number, self._since(feature))) if feature.is_exact else number

    def _exact_place(self, field: tuple[int, int]) -> int:
        """Give the place of a field among those that exact windows keep; they number fields by it."""
        if field[0] == EVERY_ROW:
            return EVERY_ROW
        if field not in self._exact:
            self._exact.append(field)
        return self._exact.index(field)

    def _since(self, feature: Feature) -> int:
        return self._beginnings.since.get(feature.name, 0)

    def _note(self, feature: Feature) -> None:
        if feature.operation in _TRAILS:
            self._trails.setdefault(self._trail(feature), len(self._trails))
        elif feature.window_us is not None:
            window, what = self._windows.setdefault(_window_key(feature), WindowLanes()), self._what(feature)
            since = self._since(feature)
            if feature.operation in ("count", "mean", "rate", "frequency", "target"):
                window.count(what, since)
            if feature.operation in ("sum", "mean", "rate", "target"):
                window.sum(what, since)
            if feature.operation in EXTRAS:
                window.keep(extra_key(feature, what), since)

    def _needs(self, feature: Feature) -> tuple[str, ...]:
        """Name the parts of the state that a feature reads."""
        meanings, operation = self._meanings, feature.operation
        if operation in _TRAILS:
            return (meanings.trail(*self._trail(feature)[:4]),)
        if feature.window_us is None:
            return (HEAD[0],) if operation == "elapsed" else ()
        what = self._what(feature)
        if feature.is_exact:
            return (EXACT_ROWS,) if what == EVERY_ROW else (meanings.field(self._exact[what][0]),)
        window = _window_key(feature)
        if operation in EXTRAS:
            return (meanings.kept(window, extra_key(feature, what)),)
        needs = () if operation == "sum" else (meanings.counter(window, what),)
        return needs if operation in ("count", "frequency") else (*needs, meanings.sum(window, what))

    def _outline(self, words: list[int], trails: list[tuple[int, ...]], exact_word: int, head: int) -> Outline:
        declared = {
            feature.name: Declared(
                self._needs(feature), self._since(feature), repr(feature), (feature.window_us or 0) * feature.is_exact
            )
            for feature in self._stage.features
        }
        return draw(
            self._pipeline,
            self._meanings,
            Drawn(
                self._beginnings.change,
                self._windows,
                words,
                self._exact,
                exact_word,
                trails,
                head,
                declared,
                self._stage.bound is not None,
            ),
        )

    def _trail(self, feature: Feature) -> TrailKey:
        span = feature.half_life_us or feature.window_us or 0
        places = feature.k if feature.operation == "lag" else 1
        return _TRAILS[feature.operation], self._what(feature), places, span, self._since(feature)

    def plan(self) -> FeaturePlan:
        """Lay out the head, write the steps."""
        lanes: list[tuple[int, int, int, int]] = []
        bound = self._stage.bound
        words, at = [], FIRST_WINDOW_WORD + (BOUND_WORDS if bound else 0)
        for (_, _, is_exact), window in self._windows.items():
            window.first = len(lanes)
            words.append(at)
            own = window.lanes()
            at += 0 if is_exact else WINDOW_WORDS + 2 * len(own)
            lanes += own
        exact_word = at
        at += EXACT_WORDS if any(is_exact for _, _, is_exact in self._windows) else 0
        trails, slots, at = self._lay_out_trails(len(lanes), at)
        raw = range(len(self._fields)) if self._is_raw else ()
        steps: list[Step] = [(RAW, number, 0, 0.0, 0.0) for number in raw]
        filled, end = [*raw], len(self._pipeline.events.fields) if self._pipeline.raw_features else 0
        edges: list[float] = []
        places = {f.name: -1 - number for number, f in enumerate(self._fields)}
        for feature in self._pipeline.features:
            start, end = end, end + len(feature.columns)
            if feature in self._stage.features:
                steps += self._steps(feature, places, edges, trails)
                filled += range(start, end)
            places[feature.name] = start
        windows = list(self._windows.values())
        table, grid = np.array(steps, np.float64).reshape(-1, 5), np.array(lanes, np.int64).reshape(-1, 4)
        operation_F, first_F, second_F = (np.ascontiguousarray(table[:, at], np.int64) for at in range(3))
        plan = Plan(
            np.array(filled, np.int64),
            operation_F,
            first_F,
            second_F,
            np.ascontiguousarray(table[:, 3:]),
            np.array(edges, np.float64),
            sum(delay is None and not is_exact for _, delay, is_exact in self._windows),
            sum(not is_exact for _, _, is_exact in self._windows),
            exact_word,
            np.array([number for number, _ in self._exact], np.int64),
            np.array([width for width, _, _ in self._windows], np.int64),
            np.array([delay or 0 for _, delay, _ in self._windows], np.int64),
            np.array(list(dict.fromkeys(delay for _, delay, _ in self._windows if delay is not None)), np.int64),
            np.array(words, np.int64),
            np.array([*(window.first for window in windows), len(lanes)], np.int64),
            np.array([window.sums_at for window in windows], np.int64),
            np.array([window.extras_at for window in windows], np.int64),
            np.ascontiguousarray(grid[:, :2]),
            np.ascontiguousarray(grid[:, 2]),
            np.ascontiguousarray(grid[:, 3]),
            np.array([row for row, _ in trails.values()], np.int64).reshape(-1, 6),
            slots,
            at,
            bound is not None,
            (bound.ttl_us or 0) if bound else 0,
            bound.most_in_each(self._pipeline.partitions) if bound else 0,
        )
        is_keyed = any(COUNT <= step[0] <= ELAPSED for step in steps)
        filtered = tuple(self._filtered.values())
        rows = [(*row, key[4]) for key, (row, _) in trails.items()]
        outline = self._outline(words, rows, exact_word, at)
        names, labels = columns(self._pipeline), self._pipeline.labels
        return FeaturePlan(names, self._fields, filtered, plan, is_keyed, self._stage, outline, labels)

    def _lay_out_trails(self, slot: int, word: int) -> tuple[dict[TrailKey, tuple[tuple[int, ...], int]], int, int]:
        """Give each trail's row and slot, then how many slots and words of the head there are."""
        found: dict[TrailKey, tuple[tuple[int, ...], int]] = {}
        for key in self._trails:
            kind, field, places, span, _ = key
            found[key] = (kind, field, word, places, span, slot), slot
            word += WEIGHTS_WORDS if kind == TRAIL_WEIGHTS else 1 + 2 * places
            slot += 2 if kind == TRAIL_WEIGHTS else 1
        return found, slot, word

    def _steps(
        self,
        feature: Feature,
        places: dict[str, int],
        edges: list[float],
        trails: dict[TrailKey, tuple[tuple[int, ...], int]],
    ) -> list[Step]:
        operation = feature.operation
        if operation in _TRAILS:
            return [(TRAIL, trails[self._trail(feature)][1] + (operation == "ewm_std"), 0, 0.0, 0.0)]
        if feature.window_us is not None:
            return [(*self._windowed(feature, self._windows[_window_key(feature)]), *window_numbers(feature))]
        if operation == "elapsed":
            return [(ELAPSED, 0, 0, 0.0, 0.0)]
        if operation == "cyclic":
            return [(made, PERIODS[feature.of], 0, 0.0, 0.0) for made in (SINE, COSINE)]
        if operation == "calendar":
            period, since, until = CALENDAR_PHASES[feature.of]
            return [(CALENDAR, period, 0, since, until)]
        if operation == "one_hot":
            field = self._numbers[feature.of]
            return [(ONE_HOT, field, 0, category_number(value), 0.0) for value in feature.values]
        if operation == "hash":
            return [(HASH, self._numbers[feature.of], 0, float(feature.buckets), 0.0)]
        return [computed_step(feature, places, edges)]

    def _windowed(self, feature: Feature, window: WindowLanes) -> tuple[int, int, int]:
        what, since = self._what(feature), self._since(feature)
        if feature.operation in ("count", "frequency"):
            return COUNT if feature.operation == "count" else FREQUENCY, window.counter(what, since), 0
        if feature.operation == "sum":
            return SUM, window.sum_lane(what, since), 0
        if feature.operation in ("mean", "rate", "target"):
            made = TARGET if feature.operation == "target" else MEAN
            return made, window.counter(what, since), window.sum_lane(what, since)
        extra = extra_key(feature, what)
        return _EXTRA_OPERATIONS[extra[0]], window.extra_lane(extra, since), extra[2]

"""Drift of a candidate's loss: detectors that see each settled event's loss, in the order in which learn settles it.

A detector that has raised an alarm begins anew with the next loss, as River's do. Alarms depend on the losses and their
order alone: cutting rows into other batches, or going on from a snapshot, changes none. Memory is fixed.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.drift_adwin import Adwin, clear_adwin, new_adwin, observe_adwin
from models.drift_kswin import Kswin, clear_kswin, new_kswin, observe_kswin
from models.drift_page_hinkley import PageHinkley, clear_page_hinkley, new_page_hinkley, observe_page_hinkley
from models.learner import MAX_MAGNITUDE, State, Vector
from streams.compiled import bare, inlined
from streams.drift import Drift

DETECTORS = ("adwin", "page_hinkley", "kswin")  # by their row in `found`
ADWIN, PAGE_HINKLEY, KSWIN = range(len(DETECTORS))
VALUE, THRESHOLD, DIRECTION, HAS_ALARM = range(4)  # columns of `found`
NEW, TOLD = 1.0, 2.0  # of an alarm


class Detectors(NamedTuple):
    """All detectors, and which of them are used; D detectors."""

    is_used_D: npt.NDArray[np.int64]
    found_D4: npt.NDArray[np.float64]
    adwin: Adwin
    page_hinkley: PageHinkley
    kswin: Kswin


class Alarm(NamedTuple):
    """One alarm: what the detector saw, the least that is an alarm, and whether the loss went up."""

    detector: str
    value: float
    threshold: float
    is_up: bool


@inlined
def clear_detectors(detectors: Detectors) -> None:
    """Let all detectors begin anew."""
    for place in range(detectors.is_used_D.size):
        detectors.found_D4[place, HAS_ALARM] = 0.0
    clear_adwin(detectors.adwin)
    clear_page_hinkley(detectors.page_hinkley)
    clear_kswin(detectors.kswin)


@inlined
def observe_loss(detectors: Detectors, loss: float) -> bool:
    """Show a loss to the detectors in use; gives whether one raises an alarm. A loss that is no number is passed over.

    About 40 ns with ADWIN alone.
    """
    if not abs(loss) <= MAX_MAGNITUDE:
        return False
    has_alarm = False
    if detectors.is_used_D[ADWIN] != 0:
        found = detectors.found_D4[ADWIN]
        if found[HAS_ALARM] > 0.0:
            clear_adwin(detectors.adwin)
        is_alarm = observe_adwin(detectors.adwin, loss, found)
        found[HAS_ALARM] = NEW if is_alarm else 0.0
        has_alarm |= is_alarm
    if detectors.is_used_D[PAGE_HINKLEY] != 0:
        found = detectors.found_D4[PAGE_HINKLEY]
        if found[HAS_ALARM] > 0.0:
            clear_page_hinkley(detectors.page_hinkley)
        is_alarm = observe_page_hinkley(detectors.page_hinkley, loss, found)
        found[HAS_ALARM] = NEW if is_alarm else 0.0
        has_alarm |= is_alarm
    if detectors.is_used_D[KSWIN] != 0:
        found = detectors.found_D4[KSWIN]
        if found[HAS_ALARM] > 0.0:
            clear_kswin(detectors.kswin)
        is_alarm = observe_kswin(detectors.kswin, loss, found)
        found[HAS_ALARM] = NEW if is_alarm else 0.0
        has_alarm |= is_alarm
    return has_alarm


@bare
def observe_kernel(detectors: Detectors, loss_B: Vector, start: int) -> int:
    """Show losses from `start` on, up to the first alarm; gives the place behind it, or minus the end without one."""
    for i in range(start, loss_B.size):
        if observe_loss(detectors, loss_B[i]):
            return i + 1
    return -loss_B.size


class LossDrift:
    """The detectors of one candidate.

    The scoreboard shows them each loss as it settles; `observe` does the same with losses at hand.

    Args:
        settings: which detectors there are, and theirs.

    Example:
        >>> drift = LossDrift(Drift())
        >>> losses = np.concatenate([np.tile([0.1, 0.3], 500), np.tile([0.7, 0.9], 100)])
        >>> [(place, alarm.detector, alarm.is_up) for place, alarm in drift.observe(losses)]
        [(1023, 'adwin', True)]
    """

    def __init__(self, settings: Drift | None = None) -> None:
        settings = settings or Drift()
        self._settings = settings
        is_used = np.array([name in settings.loss for name in DETECTORS], np.int64)
        self.detectors = Detectors(
            is_used,
            np.zeros((len(DETECTORS), 4)),
            new_adwin(settings.adwin),
            new_page_hinkley(settings.page_hinkley),
            new_kswin(settings.kswin),
        )

    def observe(self, loss_B: Vector) -> list[tuple[int, Alarm]]:
        """Take losses in order; gives the places of alarms."""
        alarms = []
        at = 0
        while (at := observe_kernel(self.detectors, loss_B, max(at, 0))) > 0:
            alarms += [(at - 1, alarm) for alarm in self.alarms()]
        return alarms

    def alarms(self) -> list[Alarm]:
        """Give the alarms that the last loss has raised, once."""
        found_D4 = self.detectors.found_D4
        is_new_D = found_D4[:, HAS_ALARM] == NEW
        found_D4[is_new_D, HAS_ALARM] = TOLD
        raised = zip(DETECTORS, found_D4.tolist(), is_new_D.tolist(), strict=True)
        return [
            Alarm(name, found[VALUE], found[THRESHOLD], found[DIRECTION] > 0.0)
            for name, found, is_new in raised
            if is_new
        ]

    def clear(self) -> None:
        """Begin anew, for a model that does."""
        clear_detectors(self.detectors)

    def state(self) -> State:
        """Give what the detectors in use remember, and the settings it belongs to."""
        return {**{name: array.copy() for name, array in self._arrays().items()}, "settings": self._stamp()}

    def restore(self, state: State) -> bool:
        """Take back what `state` gave; gives whether it is of the same settings, otherwise nothing is changed."""
        ours = self._arrays()
        stamp = state.get("settings")
        if stamp is None or not np.array_equal(stamp, self._stamp()) or not ours.keys() <= state.keys():
            return False
        for name, array in ours.items():
            array[...] = state[name].reshape(array.shape)
        return True

    def _stamp(self) -> npt.NDArray[np.uint8]:
        used = {name: getattr(self._settings, name) for name in DETECTORS if name in self._settings.loss}
        return np.frombuffer(msgspec.json.encode(used), np.uint8)

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What changes in the detectors in use."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"found": self.detectors.found_D4}
        changing = {"adwin": Adwin._fields[1:], "page_hinkley": ("sums",), "kswin": ("counts", "window_N", "words")}
        for name in self._settings.loss:
            part = getattr(self.detectors, name)
            arrays.update({f"{name}.{field}": getattr(part, field) for field in changing[name]})
        return arrays

"""The champion in memory: who answers, as the decisions say it, followed without a pause.

A promotion lets the newest version of the new champion be loaded and warmed in another thread while the last one
answers; it takes over between two batches. Where there is no version of use, whoever answered goes on; after a restart
the last champion, that of the pipeline file, or what an untrained model says: serving never stops for a model.

The untrained model of every candidate is made at the start. So its library and kernels are there when it is promoted:
to load them takes seconds in which no thread of the process could answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from serving.candidate import Candidate, Loader, load_at_once
from streams.control import Control
from streams.decisions import Succession
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.reign import FIRST
from streams.state_folder import Place

LOG = logging.getLogger("serving.champion")
SETTLE_S = 10.0  # how long a start waits for versions that an object store is slow to give
SETTLE_WAIT_S = 0.005


class Champion:
    """Answers with the candidate that reigns, or with the best there is in its place.

    Args:
        models: the candidates; without a succession the first is the champion.
        columns: the feature matrix they read.
        state: the pipeline's state, where versions lie.
        control: the control topic.
        metrics: told who answers.
        loader: where versions are loaded; answers wait for it if it is this thread.
        task: what is answered.
        succession: who reigns, read to its end; without one nobody is promoted.
        split_to: the candidate that answers a share of the keys in the champion's place.
        share: how large that is.
    """

    def __init__(
        self,
        models: Sequence[Model],
        columns: tuple[Column, ...],
        state: Place,
        control: Control,
        metrics: RoleMetrics,
        loader: Loader = load_at_once,
        task: Task | None = None,
        succession: Succession | None = None,
        split_to: str | None = None,
        share: float = 0.0,
    ) -> None:
        self.task = task or Task()
        self._metrics = metrics
        self._succession = succession or Succession(models[0].name, [model.name for model in models])
        self._candidates = {
            model.name: Candidate(model, columns, state, control, metrics, loader, self.task) for model in models
        }
        self._split = None if split_to is None else self._candidates[split_to]
        self.share = share
        self._first = self._succession.first  # the file's champion, who may answer untrained
        self._told: str | None = None  # the reign whose champion was said not to be ready
        self._reign = self._succession.reign
        self.answering = self._line()[0]  # after a restart the last champion, until the present one is loaded
        self.answering.begin()
        self._tell_reign()

    @property
    def standing(self) -> str:
        """As what it answers: `champion`, or `fallback` in the place of one that cannot."""
        return "champion" if self.answering.name == self._reign.champion else "fallback"

    @property
    def split(self) -> Candidate | None:
        """Who answers the share of the keys: nobody if the champion does all the same, or it has no version yet."""
        is_other = self._split is not None and self._split.is_trained and self._split is not self.answering
        return self._split if is_other else None

    def follow(self, now_us: int) -> None:
        """Take up promotions and versions. Called between batches; never waits for a model."""
        reign = self._succession.follow(now_us)
        if reign != self._reign:
            self._reign = reign
            self._tell_reign()
        reigning = self._candidates[reign.champion]
        self.answering.follow(now_us)
        self._follow_split(now_us)
        if self.answering is reigning:
            return
        reigning.follow(now_us)
        if not reigning.has_looked:
            return  # its version is on the way
        if reigning.is_trained or reign.id == FIRST:
            self._let(reigning)
        else:
            self._do_without(reigning, now_us)

    def _follow_split(self, now_us: int) -> None:
        if self._split is not None and self._split is not self.answering:
            self._split.follow(now_us)
            if self._split.is_trained and not self._split.is_answering:
                self._split.begin()

    def settle(self, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep) -> None:
        """Wait, at the start and not for long, until who is to answer has its newest version or is known to have none.

        The first batch after a restart would otherwise be answered by what is not trained.
        """
        until_s = clock() + SETTLE_S
        while not self._is_settled() and clock() < until_s:
            self.follow(int(time.time() * 1e6))
            wait(SETTLE_WAIT_S)

    def _is_settled(self) -> bool:
        reigning = self._candidates[self._reign.champion]
        if self.answering is reigning:
            return reigning.has_looked
        return self._told == self._reign.id and all(one.has_looked for one in self._line())

    def _do_without(self, reigning: Candidate, now_us: int) -> None:
        """Go on with whoever answers; after a restart with the first in line that has a version."""
        if self._told != self._reign.id:
            self._told = self._reign.id
            self._metrics.of(reigning.name).incident("champion_unready")
            LOG.error("%s is promoted and cannot answer, another goes on: %s", reigning.name, reigning.trouble)
        if self.answering.is_trained:
            return
        for candidate in self._line():
            candidate.follow(now_us)
            if candidate.is_trained:
                self._let(candidate)
                return

    def _line(self) -> list[Candidate]:
        """Give who may answer in the champion's place, the first choice first."""
        names = [name for name in (self._reign.last, self._first) if name is not None]
        return [self._candidates[name] for name in dict.fromkeys(names) if name in self._candidates]

    def _let(self, candidate: Candidate) -> None:
        """Let a candidate answer from the next batch on."""
        LOG.info("%s answers from here on, with version %s", candidate.name, candidate.version)
        self.answering.end()
        self.answering = candidate
        candidate.begin()

    def _tell_reign(self) -> None:
        for name in self._candidates:
            self._metrics.of(name).champion(is_reigning=name == self._reign.champion)

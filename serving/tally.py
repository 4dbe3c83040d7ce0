"""What an audit has found: counts by partition and column, and the first differences in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.comparison import Difference, Unlike

SHOWN = 5  # differences kept in full


class Tally(msgspec.Struct):
    """The findings in one partition that a stage writes; of a sample everything counts the rows that belong to it.

    "Served" is what was written there, by the last stage P.features; "the log" is what the stage reads.

    Attributes:
        stage: its number; 1 where there is no chain.
        compared: served rows that were compared with their recomputation.
        only_served: served rows that the log does not give.
        only_recomputed: rows that the log gives, missing between served ones.
        unserved: rows that the log gives, not served (yet): they come after the last served one. Of a log that was cut
            also those in between, sampled or not: duplicates of what is gone look so, too.
        out_of_reach: served rows whose log is gone, so that nothing can be said of them.
        unlike: differing values, by column.
        first: the first of them.
    """

    partition: int
    stage: int = 1
    compared: int = 0
    only_served: int = 0
    only_recomputed: int = 0
    unserved: int = 0
    out_of_reach: int = 0
    unlike: Counter[str] = msgspec.field(default_factory=Counter)
    first: list[Difference] = msgspec.field(default_factory=list)

    @property
    def one_sided(self) -> int:
        """Rows that only one side has."""
        return self.only_served + self.only_recomputed

    @property
    def skew(self) -> int:
        """Everything that is not as it should be: differing values, and rows that only one side has."""
        return self.unlike.total() + self.one_sided

    def note(self, unlike: Unlike, number_B: npt.NDArray[np.int64], ids: Sequence[str | None]) -> None:
        """Count the rows of a column that differ; `number_B` and `ids` name all rows that were compared."""
        self.unlike[unlike.column] += unlike.row_B.size
        for row in unlike.row_B[: SHOWN - len(self.first)].tolist():
            served, recomputed = _plain(unlike.served[row]), _plain(unlike.recomputed[row])
            number = int(number_B[row])
            found = Difference(self.stage, self.partition, number, ids[row], unlike.column, served, recomputed)
            self.first.append(found)

    def as_record(self) -> dict[str, Any]:
        """Give what `--json` prints of a partition."""
        counts: dict[str, Any] = msgspec.to_builtins(self)
        return counts | {"skew": self.skew}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value

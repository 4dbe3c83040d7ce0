"""Every error Millrace raises on purpose, and the exit code each one ends a process with.

    MillraceError
    ├── AbsentError          what was asked for is not there yet              exit 1
    ├── PipelineError        the pipeline file is wrong                       exit 2
    ├── UnavailableError     a broker, port, download or program is missing   exit 3
    │   ├── CutError         a running reader's position was deleted          exit 3
    │   └── StoreError       the online store cannot be read or written       exit 3
    ├── TopicError           a topic is not what the pipeline needs           exit 4
    ├── SnapshotError        state and input do not fit together              exit 5
    ├── HoleError            a row number is missing on an inner topic        exit 6
    ├── DeliveryError        Kafka refused a message for good                 exit 7
    ├── FrameError           a frame cannot be read                           exit 8
    ├── ModelError           a model is not finite, not ours, or not whole    exit 9
    ├── ArchiveError         archived examples are damaged, or another's      exit 10
    └── TrainingError        a model cannot be trained from these examples    exit 11

A message says what happened, what was found and what to do, in one line.
"""


class MillraceError(Exception):
    """Base of all errors a user can meet; `exit_code` ends the process that raised it."""

    exit_code = 1


class AbsentError(MillraceError):
    """What was asked for is not there yet; nothing is wrong."""


class PipelineError(MillraceError):
    """The pipeline file is wrong; `mistakes` holds one line per mistake."""

    exit_code = 2

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class UnavailableError(MillraceError):
    """Something outside Millrace is missing: a broker, a port, memory, a download."""

    exit_code = 3


class TopicError(MillraceError):
    """A topic exists with other partitions, retention or compaction than the pipeline needs."""

    exit_code = 4


class SnapshotError(MillraceError):
    """A snapshot, its witness and the input topic do not fit together."""

    exit_code = 5


class CutError(UnavailableError):
    """The position of a running reader was deleted from its topic; a restart finds out whether that can be mended."""


class StoreError(UnavailableError):
    """The online store cannot be read or written; `reason` is one word of a few, for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class HoleError(MillraceError):
    """A reader met a jump in a gapless source: rows are missing on an inner topic."""

    exit_code = 6


class DeliveryError(MillraceError):
    """The producer failed for good; everything since the last snapshot will be sent again."""

    exit_code = 7


class FrameError(MillraceError):
    """A frame's schema is unknown or its bytes are damaged."""

    exit_code = 8


class ModelError(MillraceError):
    """A model is not finite, over its size cap, or its blob does not verify."""

    exit_code = 9


class ArchiveError(MillraceError):
    """A file of the archive is not the one that was written, or the archive holds other rows than the topic."""

    exit_code = 10


class TrainingError(MillraceError):
    """A model cannot be trained from these examples: they are too few, do not fit the task, or make it too large.

    The same training would fail again.
    """

    exit_code = 11

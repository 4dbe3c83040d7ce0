"""Kafka's errors in Millrace's words: which pass by themselves, which end a process, and with which message.

Part of the Kafka door. Values of secret settings never appear in a message.
Codes: https://docs.confluent.io/platform/current/clients/librdkafka/html/rdkafka_8h.html
"""

# ruff: noqa: SLF001 -- the client's own error codes begin with an underscore

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from confluent_kafka import KafkaError, KafkaException

from streams.errors import MillraceError, PipelineError, UnavailableError
from streams.kafka_settings import REDACTED, redacted

LOG = logging.getLogger("streams.kafka")

FIRST_ANSWER_S = 20.0
"""How long a question is repeated to brokers that have not answered this process yet: a cluster that just starts is
waited for, a wrong address is told."""
OUTAGE_S = 240.0
"""How long one is repeated to brokers that have answered before, and records wait for them: their restart is no reason
to end a process. Each by itself is below `max.poll.interval.ms` (300 s); several one after the other may cost the
partitions, which come back."""

CLIENT_SETTINGS: dict[str, Any] = {
    "log_level": 0,  # everything that matters arrives as an error; librdkafka's own lines would repeat it on stderr
    "reconnect.backoff.max.ms": 1_000,  # default 10 s: too long to stand still after a broker's restart
    "socket.nagle.disable": True,
}

TRANSIENT = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._RETRY,
        KafkaError._DESTROY_BROKER,
        KafkaError._MAX_POLL_EXCEEDED,  # the member rejoins at its next poll; `on_lost` has said what was lost
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)
REBALANCED = frozenset(
    {
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._STATE,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
MISSING_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
AT_END = frozenset({KafkaError._PARTITION_EOF})
PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
WAITED_IN_VAIN = KafkaError._TIMED_OUT
NO_NEW_PROTOCOL = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION})
TAKEN_NAME = frozenset({KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID})


class RebalancedError(MillraceError):
    """The group gave our partitions to someone else before a commit reached it.

    Nothing is broken: what was to be committed is the new owner's to do again. The next poll says what was lost.
    """


def scrub(text: str, settings: Mapping[str, str]) -> str:
    """Return `text` in one line, without the values of secret settings."""
    for key, shown in redacted(settings).items():
        if shown == REDACTED and settings[key]:
            text = text.replace(str(settings[key]), REDACTED)
    return " ".join(text.split())


def error_of(error: KafkaError | BaseException) -> KafkaError | None:
    """Return the code-bearing error inside whatever the client raised or reported."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def translate(error: KafkaError | BaseException, settings: Mapping[str, str], doing: str) -> MillraceError:
    """Return the error of the tree for a Kafka error, naming the brokers and what was being done.

    Args:
        error: what the client raised or reported.
        settings: the user's connection settings; their secrets are cut out of the message.
        doing: what failed, as in "read topic flights.log".
    """
    brokers = settings.get("bootstrap.servers", "(no bootstrap.servers)")
    found = error_of(error)
    text = scrub(found.str() if found else str(error), settings)
    if found is None or found.code() == KafkaError._INVALID_ARG:
        return PipelineError(
            [f"[kafka]: cannot {doing}: {text}; see librdkafka's CONFIGURATION.md for what is allowed"]
        )
    if found.code() in NO_NEW_PROTOCOL:
        advice = 'the new group protocol needs Kafka 4.0 or later: set [run] group_protocol = "classic"'
    elif found.code() in TAKEN_NAME or "instance id" in text.lower():  # a fatal error hides the code in its text
        advice = "another live worker has this group.instance.id: stop it or wait for its session to end"
    elif found.code() in REFUSED:
        advice = "check the user, password and rights in [kafka]"
    else:
        advice = "check that the brokers run and that [kafka] is right"
    return UnavailableError(f"Kafka at {brokers}: cannot {doing}: {text} ({found.name()}); {advice}")


def config_error(error: BaseException, settings: Mapping[str, str], what: str) -> PipelineError:
    """Return the error for settings that librdkafka refuses when a client is made."""
    found = error_of(error)
    text = scrub(found.str() if found else str(error), settings)
    return PipelineError([f"[kafka]: {what} refuses the settings: {text}"])


class Complaints:
    """Logs each passing trouble once until things work again, so that an absent broker does not fill the log."""

    def __init__(self, settings: Mapping[str, str], who: str) -> None:
        self._settings = settings
        self._who = who
        self._codes: set[int] = set()

    def add(self, error: KafkaError) -> None:
        """Log the error unless the same one was logged since the last success."""
        if error.code() in self._codes:
            return
        self._codes.add(error.code())
        brokers = self._settings.get("bootstrap.servers", "")
        text = scrub(error.str(), self._settings)
        LOG.warning("%s: Kafka at %s: %s (%s); going on by itself", self._who, brokers, text, error.name())

    def clear(self) -> None:
        """Note a success. Called for every poll that brought something, so it must cost nothing."""
        if self._codes:
            self._codes.clear()
            LOG.warning("%s: Kafka answers again", self._who)


class Patience:
    """How long passing trouble is waited out: briefly until the brokers have answered this process, long after that.

    Args:
        settings: the user's connection settings; all clients of the same brokers know of each other's answers.
    """

    _answered: ClassVar[set[str]] = set()  # those of `bootstrap.servers` that have answered

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._brokers = settings.get("bootstrap.servers", "")

    def deadline(self) -> float:
        """Return the moment, in seconds of the monotonic clock, up to which a question that begins now is repeated."""
        return time.monotonic() + (OUTAGE_S if self._brokers in self._answered else FIRST_ANSWER_S)

    def answered(self) -> None:
        """Note that the brokers are there."""
        self._answered.add(self._brokers)

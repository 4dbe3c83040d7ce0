"""The door to Kafka: what a worker reads from (`Inbox`), writes to (`Outbox`), and their real forms.

No transactions and no automatic commits: rows carry their own numbers, the start offset of every assignment is given by
the worker, and a commit is only the witness of a snapshot. The door's rooms are `kafka_inbox`, `kafka_outbox`,
`kafka_reader`, `kafka_tail`, `kafka_topics`, `kafka_errors` and `librdkafka`; what is used elsewhere is named here.
"""

from __future__ import annotations

from streams.kafka_errors import RebalancedError
from streams.kafka_inbox import Inbox, KafkaInbox
from streams.kafka_outbox import KafkaOutbox, Outbox
from streams.kafka_reader import BEGINNING, END, Message, Partition, Reader, read_all
from streams.kafka_tail import Tail, Tailing
from streams.kafka_topics import Topics

__all__ = [
    "BEGINNING",
    "END",
    "Inbox",
    "KafkaInbox",
    "KafkaOutbox",
    "Message",
    "Outbox",
    "Partition",
    "Reader",
    "RebalancedError",
    "Tail",
    "Tailing",
    "Topics",
    "read_all",
]

"""Dead letters: what is kept of a raw record that was refused, so that it can be sent again."""

from __future__ import annotations

import base64

import msgspec

from streams.decoding import Bad
from streams.records import Records, value

KEPT_BYTES = 512 * 1024  # of a refused record's value, so that its dead letter (base64) fits into one Kafka message
KEPT_KEY_BYTES = 32 * 1024


def dead_letter(records: Records, i: int, bad: Bad) -> bytes:
    """Encode a dead letter: where the record stands, why it was refused, and its bytes (`is_cut`: not all of them)."""
    key, content = records.key(i) or b"", value(records, i) or b""
    record = {
        "topic": records.topic,
        "partition": records.partition,
        "offset": int(records.offsets[i]),
        "reason": bad.reason,
        "error": bad.error,
        "time_us": int(records.stamps[i]),
        "key": base64.b64encode(key[:KEPT_KEY_BYTES]).decode(),
        "value": base64.b64encode(content[:KEPT_BYTES]).decode(),
        "is_cut": len(key) > KEPT_KEY_BYTES or len(content) > KEPT_BYTES,
    }
    return msgspec.json.encode(record)

"""Messages of a Kafka topic. The position is the next offset of every partition, and the catalog's counts.

Partitions are assigned at those offsets: what the group has committed at the broker, which is told after every commit,
is for those who watch it, and is not read again.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, Unavailable
from everloop.data.streams.arriving import Batch, letters, with_arrival
from everloop.data.streams.decoding import decode_lines
from everloop.data.streams.origins import Kafka

_AT_ONCE = 5_000
_ANSWER_SECONDS = 10.0
_PARTITIONS_SECONDS = 30.0
_BEGINNING = -2  # librdkafka's OFFSET_BEGINNING
_HINT = "are the brokers running, and the binding right?"


class KafkaMessages:
    """The reader of a topic's partitions."""

    def __init__(self, origin: Kafka, binding: Any, schema: pa.Schema, position: Mapping[str, Any]) -> None:
        """Begin at a position: {partition: next offset}; at the beginning of partitions that it has not."""
        self._origin, self._schema = origin, schema
        self._next = {int(partition): int(offset) for partition, offset in position.items()}
        self._consumer = Consumer(_settings(origin, binding))
        self._looked = 0.0
        self._assigned: set[int] = set()
        try:
            self._assign()
        except Unavailable:
            self._consumer.close()
            raise

    def take(self, seconds: float) -> Sequence[Batch]:
        """Messages that came."""
        if time.monotonic() - self._looked > _PARTITIONS_SECONDS:
            self._assign()
        try:
            messages = self._consumer.consume(_AT_ONCE, seconds)
        except KafkaException as error:
            raise Unavailable(f"Kafka does not answer: {error}", hint=_HINT) from error
        found = [message for message in messages if self._is_next(message)]
        return [self._batch(found)] if found else []

    def position(self) -> Mapping[str, Any]:
        """{partition: next offset}."""
        return {str(partition): offset for partition, offset in sorted(self._next.items())}

    def acknowledge(self, position: Mapping[str, Any]) -> None:
        """Tell the broker, for those who watch the group's lag; nothing depends on it."""
        offsets = [TopicPartition(self._origin.topic, int(p), int(offset)) for p, offset in position.items()]
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException:
                return

    def waiting(self) -> int:
        """Messages behind the position, as far as the brokers told with the newest ones."""
        total = 0
        for partition, offset in self._next.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._origin.topic, partition), cached=True)
            total += max(0, end - offset)
        return total

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()

    def _assign(self) -> None:
        """Read all partitions, those that were added too."""
        self._looked = time.monotonic()
        try:
            found = self._consumer.list_topics(self._origin.topic, _ANSWER_SECONDS).topics[self._origin.topic]
        except KafkaException as error:
            raise Unavailable(f"Kafka does not answer: {error}", hint=_HINT) from error
        if found.error is not None:
            raise Unavailable(f"the topic {self._origin.topic}: {found.error}", hint=_HINT)
        if set(found.partitions) != self._assigned:
            self._assigned = set(found.partitions)
            where = [(p, self._next.get(p, _BEGINNING)) for p in sorted(self._assigned)]
            self._consumer.assign([TopicPartition(self._origin.topic, p, offset) for p, offset in where])

    def _is_next(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF or error.retriable():  # noqa: SLF001 - the library's public name
                return False
            raise Unavailable(f"Kafka: {error}", hint=_HINT)
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        if offset < self._next.get(partition, 0):
            return False
        self._next[partition] = offset + 1
        return True

    def _batch(self, messages: Sequence[Message]) -> Batch:
        lines = [bytes(message.value() or b"null").replace(b"\n", b" ") for message in messages]
        decoded = decode_lines(lines, self._schema)
        at = [_arrived(message) for message in messages]
        places = [f"{message.partition()}:{message.offset()}" for message in messages]
        rows = with_arrival(decoded.rows, self._origin.arrived, [at[number] for number in decoded.kept])
        return Batch(rows, min(at), "", letters(decoded, places, at))


def _arrived(message: Message) -> Micros:
    return int(message.timestamp()[1]) * 1000


def _settings(origin: Kafka, binding: Any) -> dict[str, Any]:
    given = dict(binding) if isinstance(binding, Mapping) else {"bootstrap.servers": str(binding)}
    if not given.get("bootstrap.servers"):
        raise InvalidInput(f"the binding {origin.binding} names no servers", hint="host:9092,host:9092")
    fixed = {"group.id": origin.group, "enable.auto.commit": False, "enable.auto.offset.store": False}
    return {"auto.offset.reset": "earliest", **given, **fixed}

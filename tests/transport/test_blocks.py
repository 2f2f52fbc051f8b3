"""Record batches that are opened only when they are polled."""

from __future__ import annotations

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from jupyterflow.transport import Fetch, Row, Rows
from jupyterflow.transport.kafka._blocks import Block, opened
from jupyterflow.transport.kafka._port import OPENED, KafkaPort


def block(count: int, headers: list[tuple[str, bytes]] | None = None) -> Block:
    """A closed batch with the offsets from 0 to below *count*."""
    builder = BatchBuilder(1 << 20, 0)
    for number in range(count):
        builder.append(timestamp=number, key=b"k", value=b"%d" % number, headers=headers or [])
    return Block(MemoryRecords(bytes(builder._build())).next_batch(), 0, count, 10)


def port_of(until: int | None) -> KafkaPort:
    port = KafkaPort("topic", 0, 0, until, lambda *_: None, lambda _: None)
    port._gate = True
    return port


def drained(port: KafkaPort) -> list[Fetch]:
    return list(iter(port.poll, None))  # type: ignore[arg-type]


def test_opened_messages_are_columns_and_rows() -> None:
    rows = opened([block(3, [("h", b"1")])], 0, 3)
    assert rows.values == [b"0", b"1", b"2"]
    assert rows[1] == Row(b"k", b"1", 1, [("h", b"1")], 1)
    assert next(iter(rows[1:])).offset == 1


def test_only_the_offsets_that_were_asked_for_are_given() -> None:
    assert [row.offset for row in opened([block(10)], 4, 7)] == [4, 5, 6]
    assert len(opened([block(10)], 10, 20)) == 0


def test_rows_with_and_without_headers_or_gaps_are_joined() -> None:
    plain = Rows([b"a"], [None], [1], None, range(1))
    tagged = Rows([b"b"], [b"k"], [2], [(("h", b"1"),)], range(5, 6))
    joined = Rows.concat([plain, tagged])
    assert [row.headers for row in joined] == [(), (("h", b"1"),)]
    assert list(joined.offsets) == [0, 5]


def test_a_large_fetch_is_polled_in_parts_and_each_knows_its_position() -> None:
    port = port_of(None)
    first, second = block(OPENED), block(OPENED * 2)
    second.start = OPENED  # as if it had been fetched from there
    port._give([first, second], OPENED * 2)
    assert [(f.start, f.position, len(f.records)) for f in drained(port)] == [
        (0, OPENED, OPENED),
        (OPENED, OPENED * 2, OPENED),
    ]
    assert port.waiting == (0, 0)


def test_a_bounded_port_gives_nothing_beyond_its_end() -> None:
    port = port_of(until=OPENED + 5)
    first, second = block(OPENED), block(OPENED * 2)
    second.start = OPENED
    port._give([first, second], OPENED + 5)
    fetches = drained(port)
    assert (fetches[-1].position, fetches[-1].records[-1].offset) == (OPENED + 5, OPENED + 4)
    assert port.ended

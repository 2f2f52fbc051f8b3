"""The two files that a local broker reads: its properties and where it logs to."""

import os
import re
from pathlib import Path

# Paths are relative: the broker runs in its own folder, so a comma, a backslash or a letter beyond
# Latin-1 in the path to it never reaches a Java properties file.
_SERVER = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs=data

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4

auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=6000
# A flow that was stopped for months goes on where it was.
offsets.retention.minutes=2147483647
# Event time may lie in the future; the default refuses records more than an hour ahead.
log.message.timestamp.after.max.ms=9223372036854775807
# Frames are deleted up to the committed position each minute; this makes their files go as soon.
# Kafka retains by a record's own time: replayed history would be gone within the minute.
log.retention.ms=-1
log.retention.check.interval.ms=60000
# A killed broker may register again only when its former self's session is over: 9 s by default.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000

# A laptop's share of threads and memory.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=33554432
"""

# FileHandler starts broker.0.log anew at each start and keeps the one before: two files, bounded.
_LOGGING = """\
handlers=java.util.logging.FileHandler
.level=WARNING
kafka.server.KafkaRaftServer.level=INFO
java.util.logging.FileHandler.pattern=broker.%g.log
java.util.logging.FileHandler.limit=5000000
java.util.logging.FileHandler.count=2
java.util.logging.FileHandler.formatter=java.util.logging.SimpleFormatter
java.util.logging.SimpleFormatter.format=%1$tFT%1$tT.%1$tL %4$s %3$s %5$s%6$s%n
"""


def write_config(folder: Path, port: int, controller: int) -> None:
    """Write `server.properties` and `logging.properties` into *folder* for these two ports of 127.0.0.1."""
    write_atomically(folder / "server.properties", _SERVER.format(port=port, controller=controller))
    write_atomically(folder / "logging.properties", _LOGGING)


def cluster_id(folder: Path) -> str | None:
    """The cluster's id in the formatted storage of *folder*, or None if it is not (wholly) formatted."""
    try:
        text = (folder / "data" / "meta.properties").read_text(encoding="latin-1")
    except OSError:
        return None
    found = re.search(r"^cluster\.id=([\w-]{22})\s*$", text, re.MULTILINE)
    return found[1] if found else None


def write_atomically(path: Path, text: str) -> None:
    """Write *text* to *path* so that a reader sees the old or the new text, and never a part of one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)

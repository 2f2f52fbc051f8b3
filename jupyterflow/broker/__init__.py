"""A local Apache Kafka, started on demand, and where things live on this machine."""

from jupyterflow.broker.local import LocalBroker, find, purge, start
from jupyterflow.broker.paths import cache, home, key_file

__all__ = ["LocalBroker", "cache", "find", "home", "key_file", "purge", "start"]

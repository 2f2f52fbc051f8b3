"""The Kafka transport: one consumer per flow and worker, one transactional producer per task.

Importing it imports no Kafka client.
"""

from jupyterflow.transport.kafka._inputs import InputTopic
from jupyterflow.transport.kafka._settings import KafkaConfig
from jupyterflow.transport.kafka.admin import Admin, GroupInfo, TopicSpec
from jupyterflow.transport.kafka.engine import Engine
from jupyterflow.transport.kafka.io import IOThread

__all__ = ["Admin", "Engine", "GroupInfo", "IOThread", "InputTopic", "KafkaConfig", "TopicSpec"]

"""A fold without a key_by is one value for all records, whatever keys they carry."""

from jupyterflow.model import Batch, Node
from jupyterflow.nodes.base import NodeContext
from jupyterflow.nodes.folds import Count, Fold


def test_a_fold_without_a_key_by_does_not_divide_by_the_records_own_keys():
    context = NodeContext("n")
    context.keyed = False
    batch = Count(Node("n", "operator", "count"), context).process(Batch([1, 2, 3], ["a", "b", "a"]))
    assert list(batch.values) == [1, 2, 3]
    assert batch.keys is None
    context = NodeContext("n")
    context.keyed = False
    total = Fold(Node("n", "operator", "reduce", fn=lambda acc, value: acc + value), context)
    assert total.process(Batch([1, 2, 3], ["a", "b", "a"])).values == [1, 3, 6]

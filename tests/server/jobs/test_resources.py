from server.jobs.resources import Node
from workers.planning.size import Resources


def test_a_node_has_free_what_nobody_holds_there() -> None:
    node = Node(Resources(8, 2), {"a-a1": Resources(2, 1), "": Resources(1)})
    assert node.free() == Resources(5, 1)
    assert node.free(without=["a-a1"]) == Resources(7, 2)
    assert node.free(without=["b-a1"]) == node.free()

"""The variables of a graph after surgery: found, matched with its own saver's names, renamed."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from batchinfer.errors import MappingError
from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView, copied
from conversion.weights.slices import Slice, parse_slice
from conversion.weights.specs import GraphVariable, VariableSpec

_RESTORES = ("RestoreV2", "RestoreSlice", "Restore")
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_PASSED = ("Identity", "Reshape")


def variable_name(node: Any) -> str:
    """The name under which a VarHandleOp's variable is saved and shared."""
    return node.attr["shared_name"].s.decode() or node.name


def graph_variables(
    graph_def: Any, keys: Mapping[str, str], parts: Optional[Mapping[str, Slice]] = None
) -> Tuple[GraphVariable, ...]:
    """Every variable that the graph reads, once, by name.

    Args:
        keys: checkpoint name by variable name, where they differ.
        parts: slices of the checkpoint's variables, by the name of the partition.

    Raises:
        MappingError: two handles of one variable disagree about its shape or dtype.
    """
    found: Dict[str, VariableSpec] = {}
    for node in graph_def.node:
        if node.op == "VarHandleOp":
            name = variable_name(node)
            spec = VariableSpec(
                name, tf.as_dtype(node.attr["dtype"].type).name, _shape(node.attr["shape"].shape)
            )
            if not found.setdefault(name, spec) == spec:
                raise MappingError(f"the graph holds one variable as {found[name]} and as {spec}")
    return tuple(
        GraphVariable(found[name], keys.get(name, name), (parts or {}).get(name))
        for name in sorted(found)
    )


def signature_variables(meta_graph: Any) -> Set[str]:
    """Names of the variables that the outputs of any signature_def reach."""
    outputs = [one for made in meta_graph.signature_def.values() for one in made.outputs.values()]
    tensors = [one.name or one.coo_sparse.values_tensor_name for one in outputs]
    named = {node.name for node in meta_graph.graph_def.node}
    roots = [Edge.parse(name).node for name in tensors if name]
    needed = GraphView(meta_graph.graph_def, [name for name in roots if name in named]).reachable()
    return {
        variable_name(node)
        for node in meta_graph.graph_def.node
        if node.name in needed and node.op in _VARIABLES
    }


def saver_keys(meta_graph: Any) -> Dict[str, str]:
    """Checkpoint name by variable name, read from the restore ops of the artifact's own saver.

    They differ where a model's scaffold restores moving averages into the variables, and for
    partitions.
    """
    return {name: key for name, (key, _) in _restored(meta_graph).items()}


def saver_parts(meta_graph: Any) -> Dict[str, Slice]:
    """The slice of the checkpoint's variable that a partition is, by variable name."""
    texts = {name: text for name, (_, text) in _restored(meta_graph).items() if text}
    return {name: parse_slice(text) for name, text in texts.items()}


def _restored(meta_graph: Any) -> Dict[str, Tuple[str, str]]:
    """Checkpoint name and `shape_and_slice` that the saver restores, by variable name."""
    view = GraphView(meta_graph.graph_def)
    found: Dict[str, Tuple[str, str]] = {}
    for node in _assignments(view, meta_graph.saver_def.restore_op_name):
        variable = _followed(view, Edge.parse(node.input[0]))
        value = _followed(view, Edge.parse(node.input[1]))
        restore = view.nodes.get(value.node)
        if restore is None or restore.op not in _RESTORES or variable.node not in view.nodes:
            continue
        names, slices = _strings(view, restore, 1), _strings(view, restore, 2)
        if value.index < len(names):
            text = slices[value.index] if value.index < len(slices) else ""
            found[variable_name(view.nodes[variable.node])] = (names[value.index], text)
    return found


def _followed(view: GraphView, edge: Edge) -> Edge:
    """The edge behind ops that pass their input on; savers put them in."""
    while edge.node in view.nodes and view.nodes[edge.node].op in _PASSED:
        edge = Edge.parse(view.nodes[edge.node].input[0])
    return edge


def _strings(view: GraphView, restore: Any, position: int) -> List[str]:
    """The strings of a constant input; [] when there is none."""
    if len(restore.input) <= position:
        return []
    node = view.nodes.get(_followed(view, Edge.parse(restore.input[position])).node)
    if node is None or node.op != "Const":
        return []
    array = tf.make_ndarray(node.attr["value"].tensor)
    return [text.decode() for text in array.reshape(-1)]


def _assignments(view: GraphView, restore_op: str) -> List[Any]:
    """The Assign ops behind a saver's restore op, through its groups of control edges."""
    found, waiting, seen = [], [restore_op], set()
    while waiting:
        name = waiting.pop()
        node = view.nodes.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op in ("Assign", "AssignVariableOp"):
            found.append(node)
        elif node.op == "NoOp":
            waiting += [Edge.parse(text).node for text in node.input]
    return found


def rename_variables(graph_def: Any, targets: Mapping[str, str]) -> Any:
    """Give variables their new names: handle nodes, and the names they are shared under.

    Args:
        targets: new name by old name; all of the graph's variables.

    Raises:
        MappingError: a new name is the name of another node.
    """
    made = copied(graph_def)
    handles = [node for node in made.node if node.op == "VarHandleOp"]
    nodes: Dict[str, str] = {}
    for node in handles:
        old = variable_name(node)
        node.attr["shared_name"].s = targets[old].encode()
        if node.name == old:
            nodes[old] = targets[old]
    others = {node.name for node in made.node} - set(nodes)
    taken = sorted(set(nodes.values()) & others)
    if taken:
        raise MappingError(
            f"{len(taken)} renamed variable(s) have the name of another node of the graph: "
            f"{', '.join(taken)}. Choose other names in the rules file."
        )
    for node in made.node:
        node.name = nodes.get(node.name, node.name)
        for index, text in enumerate(node.input):
            edge = Edge.parse(text)
            node.input[index] = str(Edge(nodes.get(edge.node, edge.node), edge.index))
        if "_class" in node.attr:
            places = node.attr["_class"].list
            places.s[:] = [_place(place, nodes) for place in places.s]
    return made


def _place(place: bytes, nodes: Mapping[str, str]) -> bytes:
    name = place[len(b"loc:@") :].decode()
    return b"loc:@" + nodes.get(name, name).encode()


def _shape(proto: Any) -> Any:
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else int(dim.size) for dim in proto.dim)

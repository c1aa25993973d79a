"""Lookup tables that the outputs read: their initialisers, and the files they are read from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView
from conversion.graphs.table_calls import INITIALISERS, open_table_calls
from conversion.source import Source
from conversion.tf_internals import AssetFileDef

TABLES = ("HashTable", "HashTableV2")  # that nothing but an initialiser fills


@dataclass(frozen=True)
class Asset:
    """A file that the graph reads.

    Attributes:
        tensor: the string tensor that gets the file's path when the bundle is loaded.
        path: the file now.
    """

    tensor: str
    path: str

    @property
    def filename(self) -> str:
        return os.path.basename(self.path)


def with_initialisers(source: Source, graph_def: Any) -> Any:
    """The graph with every op that fills a table in its main part."""
    return open_table_calls(graph_def, asset_paths(source))


def table_initialisers(graph_def: Any, outputs: Iterable[str]) -> Tuple[str, ...]:
    """The nodes that fill the tables that the outputs read.

    Raises:
        InputError: nothing fills a table, so that each look-up would fail; all are listed.
    """
    view = GraphView(graph_def, outputs)
    needed = view.reachable()
    filled = {
        node.name: Edge.parse(node.input[0]).node
        for node in graph_def.node
        if node.op.startswith(INITIALISERS) and Edge.parse(node.input[0]).node in needed
    }
    empty = [name for name in needed if view.nodes[name].op in TABLES]
    empty = sorted(set(empty) - set(filled.values()))
    if empty:
        raise InputError(
            f"nothing in the graph fills {len(empty)} lookup table(s): {', '.join(empty)}; "
            "expected an initialiser for each, as of main_op=tf.tables_initializer()"
        )
    return tuple(filled)


def assets(source: Source, graph_def: Any) -> Tuple[Asset, ...]:
    """The files behind the string constants that are still in the graph.

    Raises:
        InputError: a file is not there, or two have the same name.
    """
    present = {node.name for node in graph_def.node}
    paths = {
        tensor: path
        for tensor, path in asset_paths(source).items()
        if Edge.parse(tensor).node in present
    }
    names = [os.path.basename(path) for path in paths.values()]
    problems = [path for path in paths.values() if not os.path.isfile(path)]
    problems += sorted({name for name in names if names.count(name) > 1})
    if problems:
        raise InputError(
            f"{source.path}: expected one file per asset name; missing, or named twice: "
            + ", ".join(problems)
        )
    return tuple(Asset(tensor, path) for tensor, path in sorted(paths.items()))


def asset_paths(source: Source) -> Dict[str, str]:
    """Path by tensor name, as a SavedModel lists them or a graph's collection does."""
    meta_graph = source.meta_graph
    listed = list(meta_graph.asset_file_def)
    for packed in (
        meta_graph.collection_def["saved_model_assets"].any_list.value
        if ("saved_model_assets" in meta_graph.collection_def)
        else ()
    ):
        asset = AssetFileDef()
        packed.Unpack(asset)
        listed.append(asset)
    if listed:
        return {
            asset.tensor_info.name: os.path.join(source.assets_folder, asset.filename)
            for asset in listed
        }
    return _constant_paths(meta_graph)


def _constant_paths(meta_graph: Any) -> Dict[str, str]:
    if tf.GraphKeys.ASSET_FILEPATHS not in meta_graph.collection_def:
        return {}
    nodes = GraphView(meta_graph.graph_def).nodes
    names = meta_graph.collection_def[tf.GraphKeys.ASSET_FILEPATHS].node_list.value
    found = {}
    for name in names:
        node = nodes[Edge.parse(name).node]
        if node.op == "Const":
            found[name] = tf.make_ndarray(node.attr["value"].tensor).item().decode()
    return found

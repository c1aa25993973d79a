"""A graph whose functions get names of their own, so that it can stand beside another one."""

from __future__ import annotations

from typing import Any, Mapping

from conversion.graphs.graph import copied, every_node


def with_own_functions(graph_def: Any, prefix: str) -> Any:
    """Rename every function of the library, and every call and mention of it."""
    made = copied(graph_def)
    names = {one.signature.name: f"{prefix}_{one.signature.name}" for one in made.library.function}
    for function in made.library.function:
        function.signature.name = names[function.signature.name]
    for gradient in made.library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    for _, node in every_node(made):
        node.op = names.get(node.op, node.op)
        for attr in node.attr.values():
            _rename(attr, names)
    return made


def _rename(attr: Any, names: Mapping[str, str]) -> None:
    kind = attr.WhichOneof("value")
    functions = [attr.func] if kind == "func" else list(attr.list.func) if kind == "list" else []
    for function in functions:
        function.name = names.get(function.name, function.name)
        for inner in function.attr.values():
            _rename(inner, names)

"""Functions and methods of TensorFlow that answer otherwise for a while, wherever they are bound.

A function is changed in place: its code becomes a call of the answer. So `from module import
function`, made by a model before or during the while, gets the answer too, and afterwards nothing
is left that could be missed.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import types
from typing import Any, Callable, Iterator, Mapping


def _delegate(*args: Any, __answer__: Any, **kwargs: Any) -> Any:
    return __answer__(*args, **kwargs)


@contextlib.contextmanager
def answered(answers: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within, the named functions and methods answer otherwise.

    Args:
        answers: by `package.module:function` or `package.module:Class.method`: from the original,
            which still works as it did, to what is called in its place.
    """
    with contextlib.ExitStack() as stack:
        for named, answer in answers.items():
            module, _, path = named.partition(":")
            owner, _, name = path.rpartition(".")
            holder = importlib.import_module(module)
            if owner:
                stack.enter_context(_method(getattr(holder, owner), name, answer))
            else:
                stack.enter_context(_function(getattr(holder, name), answer))
        yield


@contextlib.contextmanager
def _function(function: Any, answer: Callable[[Any], Any]) -> Iterator[None]:
    function = inspect.unwrap(function)  # behind a decorator: what the decorator calls
    before = function.__code__, function.__defaults__, function.__kwdefaults__
    original = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    original.__kwdefaults__ = function.__kwdefaults__
    function.__code__ = _delegate.__code__
    function.__defaults__, function.__kwdefaults__ = None, {"__answer__": answer(original)}
    try:
        yield
    finally:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before


@contextlib.contextmanager
def _method(owner: type, name: str, answer: Callable[[Any], Any]) -> Iterator[None]:
    own = name in owner.__dict__
    before = owner.__dict__.get(name)
    setattr(owner, name, answer(getattr(owner, name, None)))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

"""`package.module:function` -> the object, and calls into a user's code whose errors read well."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from batchinfer.errors import BatchinferError, InputError
from conversion.graphs.graph import close_names

NAMED = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
SHOWN_FRAMES = 4  # of the user's own, the innermost
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = tuple(
    path + os.sep for path in {sysconfig.get_paths()[name] for name in ("stdlib", "purelib")}
)


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Modules of the current folder can be imported, as by a script that lies in it."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def load(named: str, option: str) -> Any:
    """The object that `package.module:name.attribute` names.

    Raises:
        InputError: another form, no such module or attribute, or the module fails.
    """
    found = NAMED.fullmatch(named)
    if found is None:
        raise InputError(f"{option}: expected package.module:function; found {named!r}")
    module = _imported(found.group("module"), named, option)
    value = module
    for name in found.group("path").split("."):
        if not hasattr(value, name):
            raise InputError(
                f"{option} {named}: {getattr(value, '__name__', value)} has no {name}; "
                + close_names(name, _own_callables(value))
            )
        value = getattr(value, name)
    return value


def _own_callables(value: Any) -> List[str]:
    """Functions and classes that a module or class offers."""
    return [one for one in dir(value) if one[0] != "_" and callable(getattr(value, one, None))]


def _imported(module: str, named: str, option: str) -> Any:
    try:
        with blamed(f"{option} {named}: importing {module} failed"):
            return importlib.import_module(module)
    except InputError as error:
        missing = error.__cause__
        if not isinstance(missing, ImportError) or not missing.name:
            raise
        if (module + ".").startswith(missing.name + "."):
            raise InputError(
                f"{option} {named}: no module {missing.name}; looked in {os.getcwd()} and "
                "PYTHONPATH. Run the command in the folder that the training script was run in, "
                "or name that folder in PYTHONPATH."
            ) from missing
        raise


def call_named(named: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the named function gives for these arguments.

    Raises:
        InputError: it cannot be loaded, is not callable, or fails.
    """
    function = load(named, "call:")
    if not callable(function):
        raise InputError(f"call: {named} is {function!r}; expected a function or a class")
    with blamed(f"call: {named} failed"):
        return function(*args, **kwargs)


def from_factory(named: str, option: str, arguments: Mapping[str, Any]) -> Any:
    """What the named function or class makes of the arguments.

    Of `module:Class.method`, where the method needs an instance, the class gets them, and the
    method of the instance is returned. `use_tpu` is false wherever a factory takes it.

    Raises:
        InputError: arguments are missing, unknown, or the factory fails.
    """
    factory, method = load(named, option), None
    owner, _, last = named.rpartition(".") if "." in named.partition(":")[2] else ("", "", "")
    if owner:
        holder = load(owner, option)
        if inspect.isclass(holder) and inspect.isfunction(holder.__dict__.get(last)):
            factory, method = holder, last
    arguments = dict(arguments)
    signature = inspect.signature(factory)
    takes = signature.parameters
    if "use_tpu" in takes:
        arguments["use_tpu"] = False
    try:
        signature.bind(**arguments)
    except TypeError as error:
        listed = ", ".join(map(str, takes.values()))
        raise InputError(
            f"{option} {named}: its factory takes ({listed}); found {', '.join(arguments) or 'no'} "
            f"arguments in the section factory of --params: {error}"
        ) from error
    with blamed(f"{option} {named}: the factory failed"):
        found = factory(**arguments)
    return getattr(found, method) if method else found


def call_accepted(function: Any, what: str, features: Any, offered: Mapping[str, Any]) -> Any:
    """Call a function with the features and those of the offered arguments that it takes.

    Args:
        what: how errors call it.
        offered: by name; a value of None is left to the function's own default if it has one.

    Raises:
        InputError: it is not callable, or takes something else as well.
    """
    if not callable(function):
        raise InputError(f"{what} is {function!r}; expected a function")
    parameters = dict(inspect.signature(function).parameters)
    first = "features" if "features" in parameters else _first(parameters)
    if first is None:
        raise InputError(f"{what} takes no argument; expected features")
    given = {}
    unknown = []
    for name, parameter in parameters.items():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        optional = variable or parameter.default is not parameter.empty
        if name == first:
            continue
        if name in offered and not variable:
            if offered[name] is not None or not optional:
                given[name] = offered[name]
        elif not optional:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{what} takes {', '.join(unknown)}; expected only features, "
            f"{', '.join(offered)}. If it is a function or class that gives the model_fn, put its "
            "arguments into a section `factory:` of --params"
        )
    if parameters[first].kind == inspect.Parameter.VAR_POSITIONAL or first != "features":
        return function(features, **given)
    return function(features=features, **given)


def _first(parameters: Mapping[str, inspect.Parameter]) -> Optional[str]:
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            return name
    return None


@contextlib.contextmanager
def blamed(what: str, told: str = "") -> Iterator[None]:
    """Turn any exception of the user's code into one InputError that shows where it arose.

    Args:
        what: the first line.
        told: what to add behind the frames: what was passed, and what to do.
    """
    try:
        yield
    except BatchinferError:
        raise
    except (Exception, SystemExit) as error:
        frames = "\n".join(_frames(error))
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
        cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
        parts = [what + ":", _indented(cause), frames, told]
        raise InputError("\n".join(part for part in parts if part)) from error


def _frames(error: BaseException) -> List[str]:
    """The innermost frames in the user's files, innermost last."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_OURS, "<frozen") + _LIBRARIES)
    ]
    return [
        f"    {_short(frame.filename)}:{frame.lineno} in {frame.name}: {frame.line}"
        for frame in frames[-SHOWN_FRAMES:]
    ]


def _short(path: str) -> str:
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


@contextlib.contextmanager
def flags_set(values: Mapping[str, Any], where: str) -> Iterator[None]:
    """The absl flags that loaded modules define can be read, with these values.

    A script parses them in its `main`, which is not run here. `use_tpu` is false.

    Raises:
        InputError: a name that no module defined, or a value that a flag does not take.
    """
    from absl import flags as absl_flags

    flags = absl_flags.FLAGS
    unknown = sorted(set(values) - set(flags))
    if unknown:
        raise InputError(f"{where}: no flag {', '.join(unknown)} in the section flags is defined")
    before: Dict[str, Any] = {}
    parsed = flags.is_parsed()
    settings = dict(values)
    if "use_tpu" in flags:
        settings["use_tpu"] = False
    try:
        for name, value in settings.items():
            flag = flags[name]
            before[name] = (flag.value, flag.present)
            with blamed(f"{where}: flag {name} does not take {value!r}"):
                flag.value = flag.parser.parse(value) if isinstance(value, str) else value
        if not parsed:
            flags.mark_as_parsed()
        yield
    finally:
        for name, (value, present) in before.items():
            flags[name].value, flags[name].present = value, present
        if not parsed:
            flags.unparse_flags()

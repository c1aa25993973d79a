"""params.yaml -> what a model_fn is given: params, a factory's arguments, flags of its script."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, Mapping, Optional

import yaml

from batchinfer.errors import InputError
from conversion.code.user_code import call_named

USE_TPU = "use_tpu"
CALL_KEYS = {"call", "args", "kwargs"}


class Params(dict):
    """A dict whose keys are attributes too: what TPUEstimator's params and HParams both offer.

    Nested dicts are `Params` as well. `values()` serves both: it iterates over the values, as a
    dict's does, and has `items`, `keys` and `[name]`, as the dict that HParams return has.
    `params["context"]` is there, but not in `keys()`, as in a run without a TPU.
    """

    def __init__(self, fields: Mapping[str, Any], where: str = "", context: Any = None) -> None:
        super().__init__(
            (name, Params(value, f"{where}.{name}") if type(value) is dict else value)
            for name, value in fields.items()
        )
        self.__dict__["_where"] = where
        self.__dict__["_context"] = context

    def __missing__(self, name: str) -> Any:
        if name == "context" and self.__dict__["_context"] is not None:
            return self.__dict__["_context"]
        hint = "; give the features a fixed batch size" if name == "batch_size" else ""
        raise KeyError(f"{self.__dict__['_where']} has no {name}{hint}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copy and pickle ask for
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from error

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __deepcopy__(self, memo: Any) -> Params:
        return self.copy()

    def copy(self) -> Params:
        """Values are shared: they may be a model's own objects."""
        return Params(self, self.__dict__["_where"], self.__dict__["_context"])

    def values(self) -> Any:
        return _Values(self)

    add_hparam = set_hparam = dict.__setitem__
    del_hparam = dict.__delitem__

    def override_from_dict(self, fields: Mapping[str, Any]) -> Params:
        self.update(fields)
        return self

    set_from_map = override_from_dict

    def as_dict(self) -> Dict[str, Any]:
        return {
            name: value.as_dict() if isinstance(value, Params) else value
            for name, value in self.items()
        }


class _Values:
    """Of a dict: iterates over values. Of HParams: a mapping, so that `dict()` copies it."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._params.items())

    def __len__(self) -> int:
        return len(self._params)

    def __contains__(self, value: Any) -> bool:
        return value in list(self)

    def __getitem__(self, name: str) -> Any:
        return self._params[name]

    def keys(self) -> Any:
        return self._params.keys()

    def items(self) -> Any:
        return self._params.items()

    def get(self, name: str, default: Any = None) -> Any:
        return self._params.get(name, default)


@dataclass(frozen=True)
class ParamsFile:
    """What a params file says.

    Attributes:
        where: how errors call the file.
        params: everything but the two sections below; None where there is no file.
        factory: arguments of the function or class that gives the model_fn; None without.
        flags: values of the absl flags that the model's script defines.
    """

    where: str = "--params"
    params: Optional[Mapping[str, Any]] = None
    factory: Optional[Mapping[str, Any]] = None
    flags: Mapping[str, Any] = field(default_factory=dict)


def read_params(path: Optional[str]) -> ParamsFile:
    """Read a params file; no path gives none. Nothing of the model's is called yet.

    Raises:
        InputError: not a file of YAML, or sections that are no mappings.
    """
    if path is None:
        return ParamsFile()
    where = f"--params {path}"
    try:
        with open(path, encoding="utf-8") as file:
            fields = yaml.load(file, Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {where}: {error}") from error
    fields = {} if fields is None else fields
    wrong = [] if isinstance(fields, dict) else [f"a mapping at the top, not {fields!r}"]
    for section in ("factory", "flags"):
        found = fields.get(section, {}) if isinstance(fields, dict) else {}
        if not isinstance(found, (dict, type(None))):
            wrong.append(f"a mapping in section {section}, not {found!r}")
    if wrong:
        raise InputError(f"{where}: expected " + "; ".join(wrong))
    factory = dict(fields.pop("factory") or {}) if "factory" in fields else None
    flags = fields.pop("flags", None) or {}
    return ParamsFile(where, fields, factory, flags)


def made(value: Any) -> Any:
    """The value, each `{call: package.module:function, args: [...]}` in it called.

    Raises:
        InputError: see `call_named`.
    """
    if isinstance(value, dict) and isinstance(value.get("call"), str) and set(value) <= CALL_KEYS:
        args = [made(one) for one in value.get("args") or []]
        kwargs = {name: made(one) for name, one in (value.get("kwargs") or {}).items()}
        return call_named(value["call"], args, kwargs)
    if isinstance(value, dict):
        return {name: made(one) for name, one in value.items()}
    if isinstance(value, list):
        return [made(one) for one in value]
    return value


def without_tpu(value: Any) -> Any:
    """The value, each `use_tpu` in it false."""
    if not isinstance(value, dict):
        return value
    return {name: False if name == USE_TPU else without_tpu(one) for name, one in value.items()}


class _Loader(yaml.SafeLoader):
    """YAML whose 1e-4 is a number: YAML 1.1 asks for 1.0e-4, and PyYAML makes 1e-4 a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$|^[-+]?\.\d+[eE][-+]?\d+$"),
    list("-+0123456789."),
)

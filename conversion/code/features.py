"""features.yaml -> placeholders that a model_fn is called with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

import yaml

from batchinfer.errors import InputError
from batchinfer.signature import DTYPES
from batchinfer.tf1 import tf

SCOPE = "batchinfer_inputs"  # of the placeholders, so that no variable's name depends on a feature
SECTIONS = ("features", "labels")
LONG_FORM = {"dtype", "shape", "sparse"}
SPEC = re.compile(r"(?P<sparse>sparse\s+)?(?P<dtype>\w+)\s*\[(?P<dims>[^\]]*)\]")
OPEN = ("?", "none", "null", "-1", "~")

EXAMPLE = """\
features:
  image: float32[?, 28, 28, 1]        # as inspect.py prints it; ? is an open dimension
  ids: {dtype: int32, shape: [null, 128]}
  tags: sparse int64[?, ?]
labels:                               # only where the outputs need them, as with --mode eval
  label: int32[?]
"""


@dataclass(frozen=True)
class Field:
    """One tensor that the model takes.

    Attributes:
        name: its name in the bundle's signature: the keys on the way to it, joined by `/`.
        dtype: one of `DTYPES`.
        shape: the batch first; None is an open dimension.
        sparse: whether the model takes a SparseTensor.
        rounded: whether the file says bfloat16, in whose place float32 is taken.
    """

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]
    sparse: bool = False
    rounded: bool = False

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {'sparse ' if self.sparse else ''}{self.dtype}[{dims}]"


@dataclass(frozen=True)
class Declared:
    """What a features file declares.

    Attributes:
        features: `Field`s in the structure that the model takes: one, a dict, a tuple, nested.
        labels: the same for labels; None when there are none.
    """

    features: Any
    labels: Any = None

    @property
    def fields(self) -> Tuple[Field, ...]:
        return tuple(leaves(self.features) + leaves(self.labels))

    @property
    def batch_rows(self) -> Optional[int]:
        """The fixed batch size, in rows; None when it is open."""
        found = [field.shape[0] for field in self.fields if field.shape[0] is not None]
        return found[0] if found else None


def read_features(path: Optional[str]) -> Declared:
    """Read a features file.

    A file without the sections `features` and `labels` is the features alone.

    Raises:
        InputError: no file, not YAML, or entries that are no tensors; all of them at once.
    """
    if path is None:
        raise InputError(
            "the model's code does not say what it is fed: expected --features FILE.yaml, like\n"
            + EXAMPLE
        )
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read --features {path}: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(
            f"--features {path} is not YAML: {error}\nInside {{braces}}, quote a tensor: "
            '{image: "float32[?, 28, 28, 1]"}. A whole file looks like\n' + EXAMPLE
        ) from error
    return parse_features(content, f"--features {path}")


def parse_features(content: Any, where: str) -> Declared:
    """The declared tensors of a file's content.

    Args:
        where: how errors call the file.

    Raises:
        InputError: see `read_features`.
    """
    sections = content if isinstance(content, dict) and "features" in content else None
    problems: List[str] = []
    if sections is None:
        sections = {"features": content}
        if isinstance(content, dict) and "labels" in content:
            problems.append("`labels` stands beside no `features`")
    strangers = [str(name) for name in sections if name not in SECTIONS]
    if strangers:
        problems.append(f"{', '.join(strangers)}: expected only the sections features and labels")
    parsed = {name: _parsed(sections.get(name), name, "", problems) for name in SECTIONS}
    declared = Declared(parsed["features"], parsed["labels"])
    problems += _clashes(declared)
    if not leaves(declared.features) and not problems:
        problems.append("no feature at all")
    if problems:
        listed = "\n  ".join(problems)
        raise InputError(f"{where}: {len(problems)} mistake(s):\n  {listed}\nExpected\n{EXAMPLE}")
    return declared


def _parsed(entry: Any, section: str, path: str, problems: List[str]) -> Any:
    """The entry with a `Field` for each tensor; None for nothing."""
    if entry is None and not path:
        return None
    name = path or section
    if (
        isinstance(entry, dict)
        and set(entry) <= LONG_FORM
        and "dtype" in entry
        and not isinstance(entry.get("shape"), str)
    ):
        return _long(entry, name, problems)
    if isinstance(entry, dict) and entry:
        return {
            key: _parsed(value, section, _joined(path, key), problems)
            for key, value in entry.items()
        }
    if isinstance(entry, list) and entry:
        return tuple(
            _parsed(value, section, _joined(path, index), problems)
            for index, value in enumerate(entry)
        )
    found = SPEC.fullmatch(str(entry).strip()) if isinstance(entry, str) else None
    if found is None:
        problems.append(f"{name}: expected a tensor such as float32[?, 28, 28, 1]; found {entry!r}")
        return None
    dims = [dim.strip() for dim in found.group("dims").split(",") if dim.strip()]
    return _field(name, found.group("dtype"), dims, bool(found.group("sparse")), problems)


def _joined(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _long(entry: Dict[str, Any], name: str, problems: List[str]) -> Optional[Field]:
    shape = entry.get("shape")
    if not isinstance(shape, list):
        problems.append(f"{name}: expected shape: [null, 28]; found shape: {shape!r}")
        return None
    sparse = entry.get("sparse", False)
    if not isinstance(sparse, bool):
        problems.append(f"{name}: expected sparse: true or false; found {sparse!r}")
    return _field(name, str(entry["dtype"]), shape, bool(sparse), problems)


def _field(
    name: str, dtype: str, dims: List[Any], sparse: bool, problems: List[str]
) -> Optional[Field]:
    before = len(problems)
    shape = tuple(_dim(name, dim, problems) for dim in dims)
    rounded = dtype == "bfloat16"
    dtype = {"bfloat16": "float32", "float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype not in DTYPES:
        problems.append(f"{name}: no dtype {dtype}; expected one of {', '.join(DTYPES)}, bfloat16")
    if not dims:
        problems.append(f"{name}: expected the batch as first dimension, as in {dtype}[?]")
    return Field(name, dtype, shape, sparse, rounded) if len(problems) == before else None


def _dim(name: str, dim: Any, problems: List[str]) -> Optional[int]:
    text = str(dim).strip().lower()
    if text in OPEN:
        return None
    if not re.fullmatch(r"\d+", text) or (text == "0"):
        problems.append(f"{name}: no dimension {dim!r}; expected a positive number or ?")
        return None
    return int(text)


def _clashes(declared: Declared) -> List[str]:
    """Names that come twice, and batch sizes that differ."""
    names = [field.name for field in declared.fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems = [
        f"{name}: comes twice; names of features and labels have to differ" for name in twice
    ]
    sizes = {str(field): field.shape[0] for field in declared.fields}
    if len(set(sizes.values())) > 1:
        problems.append("expected one batch size, or ? everywhere; found " + "; ".join(sizes))
    return problems


def leaves(structure: Any) -> List[Field]:
    """The fields of a structure, in its order."""
    if isinstance(structure, Field):
        return [structure]
    values = structure.values() if isinstance(structure, dict) else structure or ()
    return [field for value in values for field in leaves(value)]


def placed(structure: Any, make: Callable[[Field], Any]) -> Any:
    """The structure with what `make` gives in the place of each field."""
    if isinstance(structure, Field):
        return make(structure)
    if isinstance(structure, dict):
        return {key: placed(value, make) for key, value in structure.items()}
    if isinstance(structure, tuple):
        return tuple(placed(value, make) for value in structure)
    return structure


def placeholder(field: Field) -> Any:
    """A placeholder for a field; for a sparse one, a SparseTensor of three."""
    name = SCOPE + "/" + re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", field.name)
    if not field.sparse:
        return tf.placeholder(field.dtype, field.shape, name=name)
    rank = len(field.shape)
    return tf.SparseTensor(
        tf.placeholder("int64", [None, rank], name=name + "/indices"),
        tf.placeholder(field.dtype, [None], name=name + "/values"),
        tf.placeholder("int64", [rank], name=name + "/shape"),
    )

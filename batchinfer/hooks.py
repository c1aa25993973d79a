"""A user's function, named on the command line: found, held to its source, and blamed by its line.

Only a flag names code that is run, never a bundle. The function's identity is its name and the
digest of the file that it stands in, so that a changed hook is another run; what that file imports
is not looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import re
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from batchinfer.errors import InputError, ShardError

IMPORTING = threading.RLock()
NAMED = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


class BadRows(Exception):
    """Raised by a --preprocess hook for rows that cannot be fed: they go to the rejects.

    The hook is called again with the other rows.

    Attributes:
        reasons: row in the batch, from 0 -> why.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons)} row(s), such as {dict(list(reasons.items())[:1])}")
        self.reasons = {int(row): str(why) for row, why in reasons.items()}


@dataclass(frozen=True)
class Hook:
    """A function that every worker imports for itself; small and picklable.

    Attributes:
        option: the flag, for the messages.
        name: module:function.
        sha256: of its source.
        folder: where the driver ran; modules there can be imported where that folder exists.
    """

    option: str
    name: str
    sha256: str
    folder: str

    @classmethod
    def find(cls, option: str, name: str) -> Hook:
        """Import it here, in the driver.

        Raises:
            InputError: another form, no such module or function, or the module fails.
        """
        folder = os.getcwd()
        _, sources = _load(option, name, folder)
        return cls(option, name, _digest(sources), folder)

    @property
    def function(self) -> Callable[..., Any]:
        return _load(self.option, self.name, self.folder)[0]

    def check(self) -> None:
        """Import it here, on a worker.

        Raises:
            InputError: it cannot be imported, or has another source than the driver's.
        """
        _, sources = _load(self.option, self.name, self.folder)
        if _digest(sources) != self.sha256:
            raise InputError(
                f"{self} on {os.uname().nodename} is another one than the driver's: "
                f"{', '.join(sources)} differs. All nodes must see the same source."
            )

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """What the function raises is this shard's fault; the message names its line.

        Raises:
            ShardError: in place of any other exception than BadRows and MemoryError.
        """
        try:
            yield
        except (BadRows, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise ShardError(f"{self} raised {_in_words(error)}{self._line(error)}") from error

    def _line(self, error: BaseException) -> str:
        """The innermost line of the hook's own file; of any file where it has none."""
        frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call in here
        _, sources = _load(self.option, self.name, self.folder)
        own = [frame for frame in frames if os.path.abspath(frame.filename) in sources]
        if not frames:
            return ""
        last = (own or frames)[-1]
        return f" at {last.filename}:{last.lineno} in {last.name}: {last.line}"

    def __str__(self) -> str:
        return f"{self.option} {self.name}"


def _load(option: str, name: str, folder: str) -> tuple[Callable[..., Any], list[str]]:
    """The function, and the files that it stands in."""
    found = NAMED.fullmatch(name)
    if found is None:
        raise InputError(f"{option}: expected module:function; found {name!r}")
    if folder not in sys.path and os.path.isdir(folder):
        sys.path.append(folder)  # last, so that nothing in it hides a library
    module = _imported(option, name, found.group(1), folder)
    function = getattr(module, found.group(2), None)
    if not callable(function):
        offered = sorted(n for n in vars(module) if n[0] != "_" and callable(vars(module)[n]))
        raise InputError(
            f"{option} {name}: expected a function {found.group(2)} in {module.__file__}; found "
            f"{', '.join(offered) or 'none'}"
        )
    files = [getattr(module, "__file__", None)]
    with contextlib.suppress(TypeError):  # an object with __call__ has no file of its own
        files.append(inspect.getsourcefile(inspect.unwrap(function)))
    return function, list(dict.fromkeys(os.path.abspath(file) for file in files if file))


def _imported(option: str, name: str, module: str, folder: str) -> Any:
    try:
        with IMPORTING:  # redirecting is for the whole process, and hooks are looked up by threads
            if module in sys.modules:
                return importlib.import_module(module)
            with contextlib.redirect_stdout(sys.stderr):  # stdout holds the report, and only it
                return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        if not (module + ".").startswith(missing + "."):
            raise InputError(f"{option} {name}: importing {module} failed: {error}") from error
        raise InputError(
            f"{option} {name}: no module {missing} on {os.uname().nodename}; looked in {folder} "
            "and PYTHONPATH. Run the command in the folder that has it; on a cluster submit that "
            "folder as the job's --working-dir."
        ) from error
    except (Exception, SystemExit) as error:  # a script may end the process where it ends
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {frames[-1].filename}:{frames[-1].lineno}"
        raise InputError(
            f"{option} {name}: importing {module} failed: {_in_words(error)}{where}"
        ) from error


def _digest(files: list[str]) -> str:
    digest = hashlib.sha256()
    for name in files:
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _in_words(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"

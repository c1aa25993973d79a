"""What every command does alike: flags or a YAML file in, a JSON line and an exit status out."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from typing import Any, Callable, Dict, List, Optional, Sequence

import yaml

from batchinfer.errors import EXIT_GAVE_UP, EXIT_OK, EXIT_STOPPED, BatchinferError, InputError

EXIT_STATUS_HELP = (
    "exit status: 0 all done; 1 finished, but something was given up (it is listed); "
    "2 unusable input, bundle or options (nothing was written); "
    "75 stopped for now (the same command continues)"
)


class _Formatter(argparse.HelpFormatter):
    """Shows a default where there is one that the help text does not tell already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        told = "default" in text or action.default in (None, False, argparse.SUPPRESS)
        return text if told else text + " (default: %(default)s)"


MANY = ",..."  # ends the metavar of a flag that takes several words: YAML may hold them as a list


class Parser(argparse.ArgumentParser):
    """An argparse parser whose flags can also stand in the YAML file given by `--config`.

    A key of the file is a flag's long name with or without dashes (`batch-rows` or
    `batch_rows`). Flags on the command line win. The file exists because `ray job submit`
    of Ray 2.7 passes quotes and globs through a shell.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            epilog=EXIT_STATUS_HELP,
            formatter_class=_Formatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.add_argument(
            "--config",
            metavar="FILE.yaml",
            help="read flags from a YAML file; flags given here win",
        )

    def read(self, argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
        """Parse the command line over the config file.

        Raises:
            InputError: the file cannot be read, has a key that is not a flag, or a value that the
                flag would not take; or a required flag is in neither.
        """
        before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        before.add_argument("--config")
        path = before.parse_known_args(argv)[0].config
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
            action.nargs = action.nargs or (None if action.option_strings else "?")
        config = self._from_file(path) if path else {}
        # A flag that can be repeated would be added to its default instead of taking its place.
        repeated = {a.dest for a in self._actions if isinstance(a, argparse._AppendAction)}
        self.set_defaults(**{name: v for name, v in config.items() if name not in repeated})
        values = self.parse_args(argv)
        for name in repeated & set(config):
            if getattr(values, name) is None:
                setattr(values, name, config[name])
        missing = [_flag(action) for action in required if getattr(values, action.dest) is None]
        if missing:
            raise InputError(f"expected {', '.join(missing)} (a flag, or a key of --config)")
        return values

    def _from_file(self, path: str) -> Dict[str, Any]:
        actions = {action.dest: action for action in self._actions}
        known = (set(actions) | set(self._defaults)) - {"help", "config"}
        config = _read_config(path, known)
        return {name: _as_flag(path, actions.get(name), value) for name, value in config.items()}


def run(
    read: Callable[[], argparse.Namespace],
    call: Callable[[argparse.Namespace], Dict[str, Any]],
) -> None:
    """Call the command, print its result as one JSON line on stdout, and end the process.

    The process ends by `os._exit` after a flush: pyarrow 12 can hang or abort while Python
    shuts down after it has read Parquet, which would turn a finished job into a failed one.

    Args:
        read: gives the parsed flags.
        call: returns what is printed; a key `exit_status` becomes the exit status (default 0),
            and a key `text` is printed as it is in place of the JSON line.
    """
    stop_on_sigterm()
    try:
        result = call(read())
        status = int(result.pop("exit_status", EXIT_OK))
        print(
            result["text"] if "text" in result else json.dumps(result, sort_keys=False), flush=True
        )
    except BatchinferError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        status = EXIT_STOPPED
    except SystemExit as error:  # argparse: --help is 0, a wrong flag is 2
        status = error.code if isinstance(error.code, int) else EXIT_GAVE_UP
    except BaseException:
        traceback.print_exc()
        status = EXIT_GAVE_UP
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stop_on_sigterm() -> None:
    """Make SIGTERM end the command with exit status 75, until the driver takes it over.

    Importing ray 2.7 installs a handler of its own, so this is called again after it.
    """
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def pairs(values: Any, flag: str) -> Dict[str, str]:
    """`["image=pixels"]`, or the mapping that a config file holds, as a dict.

    Raises:
        InputError: an entry is not NAME=VALUE, or a name comes twice.
    """
    if isinstance(values, dict):
        return {str(name): str(value) for name, value in values.items()}
    found: Dict[str, str] = {}
    flags = values if isinstance(values, list) else [values]  # a flag that may be repeated
    for entry in [entry for flag in flags if flag is not None for entry in words(str(flag))]:
        name, equals, value = entry.partition("=")
        if not (name and equals and value) or name in found:
            raise InputError(f"{flag} expects NAME=VALUE once per name; found {entry!r}")
        found[name] = value
    return found


def words(values: Any) -> List[str]:
    """A flag's `"a, b"` split at its commas; a YAML list item by item, commas and all.

    Raises:
        InputError: neither words nor a list of words.
    """
    if values is None:
        return []
    values = list(values) if isinstance(values, tuple) else values
    entries = values if isinstance(values, list) else str(values).split(",")
    if isinstance(values, dict) or any(isinstance(entry, (list, dict)) for entry in entries):
        raise InputError(f"expected a list of words; found {values!r}")
    if isinstance(values, list):
        return [str(entry) for entry in entries if entry is not None]
    return [entry.strip() for entry in entries if entry.strip()]


def word(values: Any, flag: str) -> str:
    """One path or URL, as it stands.

    Raises:
        InputError: a list or a mapping.
    """
    if isinstance(values, (list, dict)):
        raise InputError(f"{flag}: expected one path or URL; found {values!r}")
    return str(values)


def _flag(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else action.dest.upper()


def _read_config(path: str, known: set) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            fields = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read --config {path}: {error}") from error
    if not isinstance(fields, dict):
        raise InputError(f"--config {path}: expected `flag: value` lines, found {fields!r}")
    config: Dict[str, Any] = {}
    for key, value in fields.items():
        name = str(key).replace("-", "_")
        if name in config:
            raise InputError(f"--config {path}: {name} is given twice")
        if value is not None:
            config[name] = value
    unknown = sorted(set(config) - known)
    if unknown:
        raise InputError(
            f"--config {path}: unknown key(s) {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}"
        )
    return config


def _as_flag(path: str, action: Optional[argparse.Action], value: Any) -> Any:
    """A value of the file as its flag would take it; argparse itself never looks at defaults."""
    many = action is None or str(action.metavar).endswith(MANY)
    if action is None or (isinstance(value, (list, dict)) and many):
        return value
    switch = action.nargs == 0
    expected = "true or false" if switch else "one value"
    if action.choices:
        expected = f"one of {', '.join(map(str, action.choices))}"
    fits = isinstance(value, bool) == switch and not isinstance(value, (list, dict))
    if not fits or (action.choices and value not in action.choices):
        raise InputError(f"--config {path}: {action.dest}: expected {expected}; found {value!r}")
    return value if switch else str(value)  # argparse gives a text the flag's type

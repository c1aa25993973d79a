"""The one error tree; a type says what the caller can do about it.

BatchinferError
├── InputError               fix the input, the bundle or the options; nothing was written  (exit 2)
│   ├── BundleError            the bundle is not whole, not proven, or not ours
│   ├── SchemaError            the data does not fit the model's signature
│   ├── OutputConflictError    the output folder belongs to another run
│   └── ConversionError        raised by `conversion`
│       ├── UnsupportedOpsError  ops that no GPU or CPU session can run
│       ├── MappingError         checkpoint and graph variables do not match one to one
│       └── ParityError          the bundle does not reproduce the reference
├── ShardError               this shard cannot be scored as it is; go on with the others
│   └── BadRowError            a row of it cannot, and that is not borne (--on-bad-row fail)
├── CommitError              an output object exists and is not what this run would write
├── StorageError             the store refused for good (forbidden, no such bucket)
│   ├── ObjectNotFoundError    nothing lies under that name
│   ├── ObjectChangedError     the object is not the one that was planned
│   └── TransientStorageError  worth a retry; out of retries: run the same command later (exit 75)
└── StoppedError             stopped for now; the same command continues              (exit 75)
    └── LeaseLostError         another driver took the output over
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_GAVE_UP = 1  # finished, but something was given up; it is listed
EXIT_UNUSABLE = 2  # unusable input, bundle or options; nothing was written
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command continues


class BatchinferError(Exception):
    """Root of every error that batchinfer raises on purpose."""

    exit_code = EXIT_GAVE_UP


class InputError(BatchinferError):
    """The input, the bundle or an option cannot be used as it is."""

    exit_code = EXIT_UNUSABLE


class BundleError(InputError):
    """The bundle is not whole, not proven, or of another format."""


class SchemaError(InputError):
    """The Parquet columns do not fit the model's signature."""


class OutputConflictError(InputError):
    """The output folder holds another run, or files that are not this run's."""


class ConversionError(InputError):
    """The artifact cannot be converted."""


class UnsupportedOpsError(ConversionError):
    """Ops reachable from the outputs that no GPU or CPU session can run."""


class MappingError(ConversionError):
    """Checkpoint variables and graph variables do not match one to one."""


class ParityError(ConversionError):
    """The bundle's predictions differ from the reference by more than the tolerance."""


class ShardError(BatchinferError):
    """One shard cannot be scored as it is; the others can."""


class BadRowError(ShardError):
    """A row cannot be scored, and the run was asked to fail then."""


class CommitError(BatchinferError):
    """An output object exists under our name and is not what this run would write."""


class StorageError(BatchinferError):
    """The store refused an operation for good."""

    exit_code = EXIT_UNUSABLE


class ObjectNotFoundError(StorageError):
    """Nothing lies under that name."""


class ObjectChangedError(StorageError):
    """The object under that name is not the version that was planned."""


class TransientStorageError(StorageError):
    """The store failed in a way that a later try may survive."""

    exit_code = EXIT_STOPPED


class StoppedError(BatchinferError):
    """Stopped for now; running the same command again continues."""

    exit_code = EXIT_STOPPED


class LeaseLostError(StoppedError):
    """Another driver holds this output now."""


def first_line(error: BaseException) -> str:
    """An error that is not ours in one line: its type, and the first line of what it says."""
    text = str(getattr(error, "message", None) or error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"

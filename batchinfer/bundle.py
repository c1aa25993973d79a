"""The bundle on disk: a SavedModel whose `assets.extra/bundle.json` proves it whole.

    bundle/
      saved_model.pb                 tag `serve`, signature `serving_default`
      variables/variables.*          the GPU checkpoint (V2 format)
      assets.extra/bundle.json       the manifest, written last
      assets.extra/parity.npz        golden inputs and outputs (optional)

The bundle's digest is the sha256 over the sorted (path, size, sha256) of the model's files,
those outside `assets.extra/`: two bundles with the same digest compute the same predictions.
The manifest is guarded by `manifest_sha256`, taken over its own text without that entry.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional

from batchinfer.errors import BundleError
from batchinfer.signature import Signature
from batchinfer.staged import staged

FORMAT_VERSION = 1
MANIFEST = "assets.extra/bundle.json"
GOLDEN = "assets.extra/parity.npz"
READ_BYTES = 1 << 20
HASH_THREADS = 4


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file was read and agrees with its manifest.

    Attributes:
        path: the local folder.
        manifest: the parsed `bundle.json`.
    """

    path: str
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def signature(self) -> Signature:
        return Signature.from_json(self.manifest["signature"])

    @property
    def parity_passed(self) -> bool:
        return bool(self.manifest["parity"] and self.manifest["parity"]["passed"])

    @classmethod
    def open(cls, path: str) -> Bundle:
        """Read the manifest and check every file against it.

        Raises:
            BundleError: no manifest, another format version, or a file that is missing,
                unexpected or changed; all of them are listed.
        """
        manifest = read_manifest(path)
        problems = _differences(manifest["files"], describe_files(path))
        if problems:
            raise BundleError(
                f"bundle {path} is damaged, {len(problems)} file(s) differ from {MANIFEST}:\n  "
                + "\n  ".join(problems)
                + "\nCopy it again or convert again; it is not scored as it is."
            )
        digest = files_digest(manifest["files"])
        if digest != manifest["digest"]:
            raise BundleError(
                f"bundle {path}: digest in {MANIFEST} is {manifest['digest']}, its file list "
                f"gives {digest}. Convert again."
            )
        return cls(path=path, manifest=manifest)


def read_manifest(path: str) -> dict[str, Any]:
    """Parse `bundle.json` of a bundle folder.

    Raises:
        BundleError: the manifest is not there, not JSON, or of another format version.
    """
    name = os.path.join(path, MANIFEST)
    try:
        with open(name, encoding="utf-8", newline="") as file:  # "\r" is no "\n" here
            text = file.read()
        manifest = json.loads(text)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is not a bundle: expected {MANIFEST} in it, found none. "
            "Make one with: python jobs/convert.py SOURCE --out BUNDLE"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read the manifest {name}: {error}") from error
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"bundle {path} has format version {found}; this batchinfer reads {FORMAT_VERSION}. "
            "Convert the model again with this version."
        )
    if text != _manifest_text({k: v for k, v in manifest.items() if k != "manifest_sha256"}):
        raise BundleError(
            f"bundle {path} is damaged: {MANIFEST} does not agree with its own manifest_sha256; "
            "it was edited or a byte flipped. Copy it again or convert again."
        )
    return dict(manifest)


def write_bundle(
    path: str,
    manifest: Mapping[str, Any],
    fill: Callable[[str], Optional[Mapping[str, Any]]],
) -> Bundle:
    """Let `fill` write the model into a temporary folder, add the manifest, move it in one step.

    Args:
        path: where the bundle shall lie; must not exist.
        manifest: every entry but `format_version`, `files` and `digest`, which are added.
        fill: called with the temporary folder; writes `saved_model.pb` and what belongs to it,
            and may return manifest entries that are only known then, such as the parity report.

    Raises:
        OutputConflictError: something lies at `path` already; it is left as it is.
        BundleError: the folder that shall hold it cannot be written.
    """
    path = os.path.abspath(path)
    with staged(path) as temporary:
        found_out = fill(temporary) or {}
        files = describe_files(temporary)
        whole = {
            **manifest,
            **found_out,
            "format_version": FORMAT_VERSION,
            "files": files,
            "digest": files_digest(files),
        }
        _write_text(os.path.join(temporary, MANIFEST), _manifest_text(whole))
    return Bundle(path, read_manifest(path))  # its files were read for their digests just now


def describe_files(path: str) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a bundle folder but its manifest, by relative path.

    Raises:
        BundleError: a symbolic link; a bundle is plain files, so that copying it copies all.
    """
    found = {}
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            whole = os.path.join(folder, name)
            relative = os.path.relpath(whole, path).replace(os.sep, "/")
            if os.path.islink(whole):
                raise BundleError(f"bundle {path}: {relative} is a symbolic link; expected a file")
            if name in names and relative != MANIFEST:
                found[relative] = whole
    relatives = sorted(found)
    with ThreadPoolExecutor(HASH_THREADS) as pool:  # hashlib lets other threads run
        digests = list(pool.map(_sha256, [found[relative] for relative in relatives]))
    return {
        relative: {"size": os.path.getsize(found[relative]), "sha256": digest}
        for relative, digest in zip(relatives, digests)
    }


def files_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over the sorted (path, size, sha256) of the files outside `assets.extra/`."""
    lines = [
        f"{name}\t{file['size']}\t{file['sha256']}\n"
        for name, file in sorted(files.items())
        if not name.startswith("assets.extra/")
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    problems = [f"missing     {name}" for name in expected if name not in found]
    problems += [f"unexpected  {name}" for name in found if name not in expected]
    for name in sorted(set(expected) & set(found)):
        if expected[name] != found[name]:
            problems.append(
                f"changed     {name}: expected {expected[name]['size']} bytes, sha256 "
                f"{expected[name]['sha256'][:12]}; found {found[name]['size']} bytes, sha256 "
                f"{found[name]['sha256'][:12]}"
            )
    return problems


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(READ_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    """The only spelling of a manifest, its own sha256 included."""
    plain = json.dumps(manifest, indent=1, sort_keys=True)
    guarded = {**manifest, "manifest_sha256": hashlib.sha256(plain.encode()).hexdigest()}
    return json.dumps(guarded, indent=1, sort_keys=True) + "\n"


def _write_text(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

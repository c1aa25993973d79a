"""The bundle on disk: whole or refused, written in one step or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from batchinfer.bundle import (
    Bundle,
    describe_files,
    files_digest,
    read_manifest,
    write_bundle,
)
from batchinfer.errors import BundleError, OutputConflictError
from batchinfer.staged import refuse_existing

MANIFEST = {
    "signature": {
        "inputs": {"x": {"tensor": "x:0", "dtype": "float32", "shape": [None, 4]}},
        "outputs": {"y": {"tensor": "y:0", "dtype": "float32", "shape": [None]}},
    },
    "parity": {"passed": True},
}
FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"\0\1\2\3",
    "assets/words.txt": b"a\nb\n",
    "assets.extra/parity.npz": b"golden",
}


def fill(folder, files=FILES):
    for name, data in files.items():
        path = os.path.join(folder, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


@pytest.fixture
def path(tmp_path):
    """A bundle of a few bytes; no TensorFlow is needed to tell whether it is whole."""
    return write_bundle(str(tmp_path / "bundle"), MANIFEST, fill).path


def flip(path, offset, mask=0xFF):
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def every_file(path):
    return sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
    )


def test_what_was_written_is_opened(path):
    bundle = Bundle.open(path)
    assert sorted(bundle.manifest) == [
        "digest", "files", "format_version", "manifest_sha256", "parity", "signature",
    ]  # fmt: skip
    assert (bundle.parity_passed, str(bundle.signature.inputs[0])) == (True, "x: float32[?, 4]")
    assert sorted(bundle.manifest["files"]) == sorted(FILES)
    assert len(bundle.digest) == 64


@pytest.mark.parametrize("mask", [0x01, 0x07, 0x20, 0xFF])  # 0x07 makes a line end another one
def test_a_flipped_byte_in_any_file_is_noticed(path, mask):
    for name in every_file(path):
        size = os.path.getsize(name)
        for offset in range(0, size, max(1, size // 200)):
            flip(name, offset, mask)
            with pytest.raises(BundleError):
                Bundle.open(path)
            flip(name, offset, mask)
    Bundle.open(path)


def test_a_flipped_byte_of_a_real_model_is_noticed(bundle, tmp_path):
    copy = str(tmp_path / "copy")
    shutil.copytree(bundle, copy)
    assert len(every_file(copy)) == 4
    for name in every_file(copy):
        size = os.path.getsize(name)
        for offset in (0, size // 2, size - 1):
            flip(name, offset, 0x01)
            with pytest.raises(BundleError):
                Bundle.open(copy)
            flip(name, offset, 0x01)
    Bundle.open(copy)


def test_every_difference_is_listed(path):
    os.unlink(os.path.join(path, "saved_model.pb"))
    flip(os.path.join(path, "assets/words.txt"), 0)
    fill(path, {"variables/more": b"1"})
    with pytest.raises(BundleError) as error:
        Bundle.open(path)
    lines = str(error.value).splitlines()
    assert "is damaged, 3 file(s) differ from assets.extra/bundle.json:" in lines[0]
    assert lines[1:3] == ["  missing     saved_model.pb", "  unexpected  variables/more"]
    assert lines[3].startswith("  changed     assets/words.txt: expected 4 bytes, sha256 ")


@pytest.mark.parametrize("target", ["saved_model.pb", "variables"])
def test_a_symbolic_link_is_refused_even_to_the_same_content(path, tmp_path, target):
    name = os.path.join(path, target)
    os.rename(name, str(tmp_path / "elsewhere"))
    os.symlink(str(tmp_path / "elsewhere"), name)
    with pytest.raises(BundleError, match=f"{target} is a symbolic link; expected a file"):
        Bundle.open(path)


def test_a_bundle_that_is_itself_linked_to_is_opened(path, tmp_path):
    os.symlink(path, str(tmp_path / "latest"))
    assert Bundle.open(str(tmp_path / "latest")).digest == Bundle.open(path).digest


@pytest.mark.parametrize("missing", ["bundle", "manifest", "folder is a file"])
def test_what_is_no_bundle_is_said(path, missing, tmp_path):
    if missing == "bundle":
        path = str(tmp_path / "none")
    elif missing == "manifest":
        os.unlink(os.path.join(path, "assets.extra/bundle.json"))
    else:
        path = os.path.join(path, "saved_model.pb")
    with pytest.raises(BundleError, match=r"is not a bundle|cannot read the manifest"):
        Bundle.open(path)


TEXTS = [
    ("empty", b"", "cannot read the manifest"),
    ("not JSON", b"{", "cannot read the manifest"),
    ("not text", b"\xff\xfe", "cannot read the manifest"),
    ("a list", b"[]", "has format version None; this batchinfer reads 1"),
    ("an older format", b'{"format_version": 0}', "has format version 0; this batchinfer reads 1"),
    ("a later format", b'{"format_version": 2}', "has format version 2; this batchinfer reads 1"),
    ("edited", b'{"format_version": 1}', "does not agree with its own manifest_sha256"),
]


@pytest.mark.parametrize("text, words", [t[1:] for t in TEXTS], ids=[t[0] for t in TEXTS])
def test_a_manifest_that_cannot_be_trusted_is_refused(path, text, words):
    fill(path, {"assets.extra/bundle.json": text})
    with pytest.raises(BundleError, match=words):
        read_manifest(path)


def test_a_manifest_spelled_otherwise_is_refused(path):
    name = os.path.join(path, "assets.extra/bundle.json")
    with open(name) as file:
        manifest = json.load(file)
    fill(path, {"assets.extra/bundle.json": json.dumps(manifest).encode()})
    with pytest.raises(BundleError, match="manifest_sha256"):
        Bundle.open(path)


def test_a_digest_that_is_not_of_the_files_is_refused(path):
    manifest = dict(Bundle.open(path).manifest, digest="f" * 64)
    del manifest["manifest_sha256"]
    plain = json.dumps(manifest, indent=1, sort_keys=True)
    manifest["manifest_sha256"] = hashlib.sha256(plain.encode()).hexdigest()
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    fill(path, {"assets.extra/bundle.json": text.encode()})
    with pytest.raises(BundleError, match=r"digest in assets\.extra/bundle\.json is ffff"):
        Bundle.open(path)


# Digest -----------------------------------------------------------------------------------


def test_the_digest_is_of_the_model_not_of_its_proofs(tmp_path):
    files = {**FILES, "assets.extra/parity.npz": b"other", "assets.extra/more": b"1"}
    first = write_bundle(str(tmp_path / "a"), MANIFEST, fill)
    second = write_bundle(
        str(tmp_path / "b"),
        {**MANIFEST, "parity": {"passed": False}, "source": "elsewhere"},
        lambda folder: fill(folder, files),
    )
    assert first.digest == second.digest


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("assets.extra")])
def test_each_file_of_the_model_changes_the_digest(tmp_path, name):
    changed = {**FILES, name: FILES[name] + b"!"}
    renamed = {key + "x" if key == name else key: data for key, data in FILES.items()}
    digests = {
        write_bundle(str(tmp_path / str(i)), MANIFEST, lambda f, files=files: fill(f, files)).digest
        for i, files in enumerate([FILES, changed, renamed])
    }
    assert len(digests) == 3


def test_the_digest_does_not_change_between_versions(tmp_path):
    # A literal: another value would refuse to continue every output that exists.
    fill(str(tmp_path), {"saved_model.pb": b"graph", "assets.extra/x": b"1"})
    assert (
        files_digest(describe_files(str(tmp_path)))
        == "5c8b305225c450cb80ff869e4995420a08ed6e4bc08975a40918b18b246a1de4"
    )


# Writing ----------------------------------------------------------------------------------


def test_fill_may_add_what_it_found_out(tmp_path):
    def fill_and_tell(folder):
        fill(folder)
        return {"parity": None}

    bundle = write_bundle(str(tmp_path / "bundle"), MANIFEST, fill_and_tell)
    assert (bundle.manifest["parity"], bundle.parity_passed) == (None, False)


@pytest.mark.parametrize("what", ["folder", "file", "broken link", "bundle"])
def test_what_lies_there_is_never_overwritten(tmp_path, what):
    target = tmp_path / "bundle"
    if what == "folder":
        target.mkdir()
    elif what == "file":
        target.write_text("theirs")
    elif what == "broken link":
        target.symlink_to(tmp_path / "nothing")
    else:
        write_bundle(str(target), MANIFEST, fill)
    before = sorted(os.walk(str(tmp_path)))
    with pytest.raises(OutputConflictError, match="exists already and is never overwritten"):
        write_bundle(str(target), MANIFEST, lambda folder: pytest.fail("fill was called"))
    with pytest.raises(OutputConflictError):
        refuse_existing(str(target))
    assert sorted(os.walk(str(tmp_path))) == before


def test_what_appears_meanwhile_is_not_overwritten_either(tmp_path):
    def fill_slowly(folder):
        fill(folder)
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "theirs").write_text("theirs")

    with pytest.raises(OutputConflictError, match="exists already"):
        write_bundle(str(tmp_path / "bundle"), MANIFEST, fill_slowly)
    assert os.listdir(str(tmp_path)) == ["bundle"]
    assert os.listdir(str(tmp_path / "bundle")) == ["theirs"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_fill_that_fails_leaves_nothing(tmp_path, error):
    def fill_half(folder):
        fill(folder)
        raise error("half")

    with pytest.raises(error, match="half"):
        write_bundle(str(tmp_path / "deep" / "deeper" / "bundle"), MANIFEST, fill_half)
    assert os.listdir(str(tmp_path)) == []


def test_parents_that_others_use_meanwhile_stay(tmp_path):
    def fill_beside(folder):
        (tmp_path / "deep" / "theirs").write_text("theirs")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_bundle(str(tmp_path / "deep" / "bundle"), MANIFEST, fill_beside)
    assert os.listdir(str(tmp_path / "deep")) == ["theirs"]


def test_a_fill_that_links_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(BundleError, match="symbolic link"):
        write_bundle(
            str(tmp_path / "bundle"), MANIFEST,
            lambda folder: os.symlink("/etc/hostname", os.path.join(folder, "saved_model.pb")),
        )  # fmt: skip
    assert os.listdir(str(tmp_path)) == []


def test_others_may_read_the_folder(path):
    assert os.stat(path).st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="the bundle cannot be written into"):
        write_bundle(str(tmp_path / "file" / "bundle"), {}, lambda folder: None)

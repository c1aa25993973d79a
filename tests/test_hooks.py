"""A function named on the command line: found, held to its source, blamed by its line."""

from __future__ import annotations

import pickle

import pytest

from batchinfer.errors import InputError, ShardError
from batchinfer.hooks import BadRows, Hook

DOUBLE = """
def double(x):
    return 2 * x
"""


def test_a_function_of_a_module_in_the_current_folder_is_found(write_hook):
    name, _ = write_hook(DOUBLE)
    hook = Hook.find("--preprocess", f"{name}:double")
    assert hook.function(4) == 8
    assert str(hook) == f"--preprocess {name}:double"
    assert pickle.loads(pickle.dumps(hook)) == hook
    hook.check()


def test_another_source_is_another_hook(write_hook):
    name, _ = write_hook(DOUBLE)
    before = Hook.find("--preprocess", f"{name}:double")
    write_hook(DOUBLE.replace("2 * x", "3 * x"), name)
    after = Hook.find("--preprocess", f"{name}:double")
    assert (before.name, before.sha256 == after.sha256) == (after.name, False)
    with pytest.raises(InputError, match=r"is another one than the driver's: .*All nodes must see"):
        before.check()


def test_a_function_that_stands_in_another_file_changes_with_that_file(write_hook):
    helper, _ = write_hook(DOUBLE)
    name, _ = write_hook(f"from {helper} import double")
    before = Hook.find("--preprocess", f"{name}:double")
    write_hook(DOUBLE + "# changed", helper)
    write_hook(f"from {helper} import double", name)
    assert Hook.find("--preprocess", f"{name}:double").sha256 != before.sha256


REFUSED = [
    ("no function", "hook", "expected module:function; found 'hook'"),
    ("a path", "folder/hook.py:f", "expected module:function; found 'folder/hook.py:f'"),
    ("no module", "no_such_hook:f", "no module no_such_hook on "),
    ("no package", "no_such.hook:f", "no module no_such on "),
    ("no such function", "{name}:triple", "expected a function triple in {path}; found double"),
    ("no callable", "{name}:np", "expected a function np in {path}; found double"),
    ("a module that needs another", "{needy}:f", "importing {needy} failed: No module named 'abs"),
    ("a module that fails", "{failing}:f", "ZeroDivisionError: division by zero at {where}:2"),
]  # fmt: skip


@pytest.mark.parametrize("named, words", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_found_is_refused(write_hook, named, words):
    name, path = write_hook(DOUBLE)
    failing, where = write_hook("1 / 0")
    known = {
        "name": name, "path": path, "failing": failing, "where": where,
        "needy": write_hook("import absent")[0],
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        Hook.find("--preprocess", named.format(**known))
    assert str(error.value).startswith("--preprocess")
    assert words.format(**known) in str(error.value)


def test_what_a_hook_raises_names_its_own_line(write_hook):
    name, path = write_hook("""
        def outer(x):
            return inner(x)

        def inner(x):
            return np.reshape(x, (2, 2))
        """)
    hook = Hook.find("--postprocess", f"{name}:outer")
    with pytest.raises(ShardError) as error, hook.blamed():
        hook.function([1, 2, 3])
    assert str(error.value) == (
        f"--postprocess {name}:outer raised ValueError: cannot reshape array of size 3 into shape "
        f"(2,2) at {path}:7 in inner: return np.reshape(x, (2, 2))"
    )
    assert isinstance(error.value.__cause__, ValueError)


def test_a_module_that_ends_the_process_is_refused_and_what_it_prints_is_no_report(
    write_hook, capsys
):
    name, path = write_hook("print('hello')\nraise SystemExit(0)")
    with pytest.raises(InputError, match=f"failed: SystemExit: 0 at {path}:3"):
        Hook.find("--preprocess", f"{name}:f")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_hook_that_ends_the_process_costs_its_shard(write_hook):
    name, _ = write_hook("def f(): raise SystemExit(0)")
    hook = Hook.find("--preprocess", f"{name}:f")
    with pytest.raises(ShardError, match="f raised SystemExit: 0 at "), hook.blamed():
        hook.function()


@pytest.mark.parametrize("raised", [BadRows({0: "torn"}), MemoryError(), KeyboardInterrupt()])
def test_what_is_not_the_hooks_fault_passes(write_hook, raised):
    name, _ = write_hook(DOUBLE)
    with pytest.raises(type(raised)), Hook.find("--preprocess", f"{name}:double").blamed():
        raise raised

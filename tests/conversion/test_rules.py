"""The rules file."""

from __future__ import annotations

import pytest

from batchinfer.errors import InputError
from conversion.names import Drop, Rename, Rules
from conversion.rules import EXAMPLE, read_rules


def test_the_example_in_the_message_is_a_rules_file(tmp_path):
    (tmp_path / "rules.yaml").write_text(EXAMPLE)
    assert read_rules(str(tmp_path / "rules.yaml")) == Rules(
        renames=(Rename("tpu_cnn_model/(.*)", r"gpu_cnn_model/\1"),),
        drops=(Drop("debug/.*", "written by a hook, not part of the model"),),
    )


def test_no_file_and_an_empty_file_give_no_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text("")
    assert read_rules(None) == read_rules(str(tmp_path / "rules.yaml")) == Rules()


@pytest.mark.parametrize(
    "text, message",
    [
        ("renames: []", "expected lists `rename` and `drop`"),
        ("- a", "expected lists `rename` and `drop`"),
        ("rename: [{from: a}]", "expected the keys from and to in each rule; found {'from': 'a'}"),
        ("drop: [a]", "expected the keys name and reason in each rule; found 'a'"),
        ("rename: {", "cannot read --rules"),
    ],
)
def test_a_file_that_is_no_rules_file_is_refused(tmp_path, text, message):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_rules(str(tmp_path / "rules.yaml"))
    assert message in str(error.value)

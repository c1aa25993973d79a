"""The name mapping; integers stand for tensors, because renaming never looks at values."""

from __future__ import annotations

import pytest

from batchinfer.errors import InputError, MappingError
from conversion.names import Drop, GraphVariable, Rename, Rules, VariableSpec, assign, match


def spec(name, shape=(), dtype="float32"):
    return VariableSpec(name, dtype, shape)


def read(name, shape=(), dtype="float32", key=None):
    return GraphVariable(spec(name, shape, dtype), key or name)


def mapped(values, graph, rules):
    """What the bundle would hold, and why the rest is not in it."""
    mapping = assign([spec(name) for name in values], graph, rules)
    kept = {one.target: values[one.source.name] for one in mapping.assignments}
    return kept, {drop.name: drop.reason for drop in mapping.drops}


TO_GPU = Rules(renames=(Rename("tpu_cnn_model/(.*)", r"gpu_cnn_model/\1"),))


def test_renames_give_the_bundle_its_names_and_defaults_drop_the_optimizer():
    values = {
        "tpu_cnn_model/kernel": 1,
        "tpu_cnn_model/kernel/Adam": 2,
        "tpu_cnn_model/kernel/Adam_1": 3,
        "beta1_power": 4,
        "global_step": 5,
    }
    kept, dropped = mapped(values, [read("tpu_cnn_model/kernel")], TO_GPU)
    assert kept == {"gpu_cnn_model/kernel": 1}
    assert dropped == {
        "tpu_cnn_model/kernel/Adam": "optimizer slot",
        "tpu_cnn_model/kernel/Adam_1": "optimizer slot",
        "beta1_power": "optimizer state (power of beta)",
        "global_step": "training step",
    }


@pytest.mark.parametrize(
    "name",
    [
        "global_step",
        "a/kernel/Momentum",
        "a/kernel/RMSProp_2",
        "a/a/kernel/Adam_1",  # inside a variable_scope the scope comes twice
        "a/kernel/LARSOptimizer",
        "beta2_power_1",
        "bert/embeddings/adam_m",
        "a/kernel_slot_vr",
        "Adam/iter",
        "training/Adam/a/kernel/m",
        "a/kernel/ExponentialMovingAverage",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    ],
)
def test_what_trainers_save_is_dropped_by_default(name):
    assert mapped({"w": 1, name: 2}, [read("w")], Rules())[0] == {"w": 1}


@pytest.mark.parametrize("name", ["a/Adam", "global_step", "a/w/ExponentialMovingAverage"])
def test_a_default_drop_never_takes_a_variable_that_the_graph_reads(name):
    assert mapped({name: 7}, [read(name)], Rules()) == ({name: 7}, {})


@pytest.mark.parametrize("name", ["adam/kernel", "my_global_step", "a/Adamant", "kernel_slot"])
def test_names_that_only_look_alike_are_not_dropped(name):
    with pytest.raises(MappingError, match="no rule for"):
        mapped({"w": 1, name: 2}, [read("w")], Rules())


def test_the_saver_of_the_graph_says_which_key_a_variable_has():
    values = {"w/ExponentialMovingAverage": 1}
    graph = [read("w", key="w/ExponentialMovingAverage")]
    assert mapped(values, graph, Rules()) == ({"w": 1}, {})


def test_a_rename_can_bring_a_checkpoint_to_the_names_of_the_graph():
    rules = Rules(renames=(Rename("old/(.*)", r"new/\1"),))
    assert mapped({"old/w": 1}, [read("new/w")], rules) == ({"new/w": 1}, {})


def test_the_first_rename_that_matches_is_the_one_that_is_applied():
    rules = Rules(renames=(Rename("a/b", "x"), Rename("a/(.*)", r"y/\1")))
    kept, _ = mapped({"a/b": 1, "a/c": 2}, [read("a/b"), read("a/c")], rules)
    assert kept == {"x": 1, "y/c": 2}


def test_a_drop_of_the_user_comes_first_and_gives_its_reason():
    rules = Rules(drops=(Drop("debug/.*", "written by a hook"),))
    assert mapped({"w": 1, "debug/n": 2}, [read("w")], rules)[1] == {"debug/n": "written by a hook"}


def test_everything_that_does_not_match_is_listed_at_once():
    checkpoint = [
        spec("ema/kernel", (16, 4)),
        spec("tower/kernel", (16, 4)),
        spec("a/bias", (4,)),
        spec("b/bias", (4,)),
    ]
    graph = [
        read("model/kernel", (4, 16)),
        read("model/gamma", (4,)),
        read("model/bias", (4,)),
    ]
    rules = Rules(
        renames=(
            Rename("tower/(.*)", r"model/\1"),
            Rename("[ab]/(.*)", r"model/\1"),
            Rename("towr/(.*)", r"model/\1"),
        )
    )
    with pytest.raises(MappingError) as error:
        assign(checkpoint, graph, rules)
    assert str(error.value) == (
        "checkpoint (+) and graph (-) differ in 5 places:\n"
        "  two sources    + a/bias  float32[4]\n"
        "                 + b/bias  float32[4]\n"
        "                 - model/bias  float32[4]\n"
        "  no source for  - model/gamma  float32[4]\n"
        "  differs        + tower/kernel  float32[16, 4]\n"
        "                 - model/kernel  float32[4, 16]\n"
        "  no rule for    + ema/kernel  float32[16, 4]\n"
        "  unused rule    rename towr/(.*) -> model/\\1\n"
        "Add a rename or a drop (with its reason) to the rules file."
    )


def test_what_fits_is_known_even_where_something_does_not():
    mapping, problem = match([spec("w"), spec("x")], [read("w")], Rules())
    assert [one.target for one in mapping.assignments] == ["w"]
    assert "+ x  float32[]" in problem


def test_two_graph_variables_cannot_get_one_name():
    rules = Rules(renames=(Rename("[ab]", "c"),))
    with pytest.raises(MappingError, match="same new name"):
        assign([spec("a")], [read("a"), read("b")], rules)


@pytest.mark.parametrize(
    "source, variable, fits",
    [
        (spec("w", (2,)), spec("w", (2,)), True),
        (spec("w", (2,)), spec("w", (3,)), False),
        (spec("w", (2,)), spec("w", (2, 1)), False),
        (spec("w", (2,)), spec("w", None), True),  # the graph leaves the shape open
        (spec("w", (2,)), spec("w", (None,)), True),
        (spec("w", (2,), "bfloat16"), spec("w", (2,)), True),
        (spec("w", (2,), "int64"), spec("w", (2,)), False),
    ],
)
def test_shapes_and_dtypes_have_to_agree_except_for_bfloat16(source, variable, fits):
    assert source.fits(variable) is fits


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rename("(", "x"), "rename '\\(' is not a regular expression"),
        (lambda: Rename("a(.*)", r"\2"), "the replacement does not fit"),
        (lambda: Drop("a", " "), "drop 'a' has no reason"),
    ],
)
def test_a_rule_checks_itself(make, message):
    with pytest.raises(InputError, match=message):
        make()

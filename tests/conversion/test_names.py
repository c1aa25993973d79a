"""The name mapping; integers stand for tensors, because renaming never looks at values."""

from __future__ import annotations

import pytest

from batchinfer.errors import InputError, MappingError
from conversion.weights.matching import assign, match
from conversion.weights.names import Drop, GraphVariable, Rename, Rules, Transform, VariableSpec
from conversion.weights.steps import Cast, Concat, Reshape, Transpose, UnpermuteMod


def spec(name, shape=(), dtype="float32"):
    return VariableSpec(name, dtype, shape)


def read(name, shape=(), dtype="float32", key=None):
    return GraphVariable(spec(name, shape, dtype), key or name)


def mapped(values, graph, rules):
    """What the bundle would hold, and why the rest is not in it."""
    mapping = assign([spec(name) for name in values], graph, rules)
    kept = {one.target: values[one.pieces[0].spec.name] for one in mapping.assignments}
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
        "tpu_cnn_model/kernel/Adam": "optimizer slot (Adam)",
        "tpu_cnn_model/kernel/Adam_1": "optimizer slot (Adam)",
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
        "Add a rename or a drop (with its reason) to the rules file.\n"
        "A transform of model/kernel with the step {transpose: [1, 0]} (and a reason) would fit; "
        "whether it is right, only the parity report tells."
    )


def test_what_fits_is_known_even_where_something_does_not():
    mapping, problem = match([spec("w"), spec("x")], [read("w")], Rules())
    assert [one.target for one in mapping.assignments] == ["w"]
    assert "+ x  float32[]" in problem


def test_every_kind_of_rule_that_matches_nothing_is_named():
    rules = Rules(
        renames=(Rename("towr/.*", "x"),),
        drops=(Drop("debg/.*", "typing mistake"),),
        transforms=(Transform("modl", ("w",), (Reshape((1,)),), "r"),),
    )
    _, problem = match([spec("w")], [read("w")], rules)
    assert [line.strip() for line in problem.splitlines() if "unused" in line] == [
        "unused rule    rename towr/.* -> x",
        "unused rule    drop debg/.*",
        "unused rule    transform modl",
    ]


def test_names_that_all_differ_by_one_prefix_give_the_rule_to_type():
    checkpoint = [spec("tower/a/w", (2,)), spec("tower/a/b"), spec("tower/w/Adam", (2,))]
    graph = [read("net/a/w", (2,)), read("net/a/b")]
    _, problem = match(checkpoint, graph, Rules())
    assert "rename:\n  - from: tower/(.*)\n    to: net/\\1" in problem
    again, problem = match(checkpoint, graph, Rules(renames=(Rename("tower/(.*)", r"net/\1"),)))
    assert problem == "" and len(again.assignments) == 2


def test_near_names_and_shards_are_pointed_at():
    checkpoint = [spec("model/gama", (4,)), spec("emb/part_0", (2, 4)), spec("emb/part_1", (3, 4))]
    _, problem = match(checkpoint, [read("model/gamma", (4,)), read("emb", (5, 4))], Rules())
    assert "Near model/gamma: model/gama" in problem
    assert "  - to: emb\n    from: [emb/part_0, emb/part_1]\n    steps: [{concat: 0}]" in problem


def transformed(steps, sources, variable):
    """The mapping of `variable` from checkpoint variables, by steps."""
    rules = Rules(transforms=(Transform("w", tuple(one.name for one in sources), steps, "why"),))
    return match(sources, [variable], rules)


@pytest.mark.parametrize(
    "steps, shapes, wanted",
    [
        ((Transpose((1, 0)),), [(2, 3)], (3, 2)),
        ((Reshape((3, -1)),), [(2, 3)], (3, 2)),
        ((Concat(0),), [(2, 3), (4, 3)], (6, 3)),
        ((Concat(-1), Transpose((1, 0))), [(2, 3), (2, 4)], (7, 2)),
        ((UnpermuteMod(2),), [(5, 3)], (5, 3)),
    ],
)
def test_a_transform_brings_a_shape_to_the_graphs(steps, shapes, wanted):
    sources = [spec(f"s{index}", shape) for index, shape in enumerate(shapes)]
    mapping, problem = transformed(steps, sources, read("w", wanted))
    assert problem == ""
    (made,) = mapping.assignments
    assert made.to_json()["steps"] == [step.text for step in steps]
    assert made.to_json()["reason"] == "why"
    assert made.to_json()["shape"] == list(wanted)


def test_a_cast_changes_a_dtype_that_no_rule_may_change_silently():
    source = spec("s0", (2,), "float64")
    assert transformed((Cast("float32"),), [source], read("w", (2,)))[1] == ""
    assert "differs" in match([spec("w", (2,), "float64")], [read("w", (2,))], Rules())[1]


@pytest.mark.parametrize(
    "steps, shapes, message",
    [
        ((Transpose((0, 0)),), [(2, 3)], "transpose [0, 0]: expected each of the axes"),
        ((Reshape((4, -1)),), [(2, 3)], "reshape [4, -1]: [2, 3] has 6 values"),
        ((Concat(0),), [(2, 3), (2, 4)], "differ in another axis"),
        ((Concat(2),), [(2, 3), (2, 3)], "concat 2: the shards have 2 dimensions"),
        ((Reshape((6,)),), [(2, 3)], "the steps give float32[6]"),
    ],
)
def test_a_transform_that_does_not_fit_says_which_step(steps, shapes, message):
    sources = [spec(f"s{index}", shape) for index, shape in enumerate(shapes)]
    mapping, problem = transformed(steps, sources, read("w", (3, 2)))
    assert mapping.assignments == ()
    assert message in problem


def test_a_transform_of_something_that_is_not_there_is_listed():
    rules = Rules(transforms=(Transform("w", ("gone",), (Reshape((1,)),), "why"),))
    problem = match([], [read("w", (1,))], rules)[1]
    assert "no such source transform w" in problem and "+ gone is not there" in problem


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
        (spec("w", (2,)), spec("w", (2,), "bfloat16"), False),
        (spec("w", (2,)), spec("w", (2,), "float16"), False),
    ],
)
def test_shapes_and_dtypes_have_to_agree_except_for_bfloat16(source, variable, fits):
    assert source.fits(variable) is fits


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rename("(", "x"), "rename '\\(' is not a regular expression"),
        (lambda: Rename("a(.*)", r"\2"), "the replacement does not fit"),
        (lambda: Rename("(a)|b", r"\2"), "the replacement does not fit"),
        (lambda: Drop("a", " "), "drop 'a' has no reason"),
        (lambda: Transform("a", ("b",), (Reshape((1,)),), ""), "transform 'a' has no reason"),
        (lambda: Transform("a", (), (Reshape((1,)),), "r"), "no source or no step"),
        (lambda: Transform("a", (r"\1",), (Reshape((1,)),), "r"), "the replacement does not fit"),
        (lambda: Transform("a", ("b", "c"), (Reshape((1,)),), "r"), "concat as the first step"),
        (lambda: Transform("a", ("b",), (Concat(0),), "r"), "concat as the first step"),
    ],
)
def test_a_rule_checks_itself(make, message):
    with pytest.raises(InputError, match=message):
        make()

"""Raw weights or moving averages: asked for, taken, recorded."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import MappingError
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.inspection import inspect
from conversion.inspection_text import as_text
from conversion.lowering import Request
from conversion.options import ConvertOptions
from conversion.source import open_source
from conversion.weights.matching import assign, match
from conversion.weights.names import NO_RULES, Drop, Rename, Rules, Transform
from conversion.weights.specs import GraphVariable, VariableSpec
from conversion.weights.steps import Concat, Transpose

EMA = "ExponentialMovingAverage"


def spec(name, shape=(2,)):
    return VariableSpec(name, "float32", shape)


def read(name, key=None, shape=(2,)):
    return GraphVariable(spec(name, shape), key or name)


CHECKPOINT = [
    spec("n/w"),
    spec("n/b"),
    spec("n/moving_mean"),
    spec(f"n/w/{EMA}"),
    spec(f"n/n/b/{EMA}"),  # averaged inside a variable_scope
    spec("n/w/Momentum"),
    spec("n/b/Momentum"),
]
GRAPH = [read("n/w"), read("n/b"), read("n/moving_mean")]


def sources(mapping):
    return {one.target: one.pieces[0].spec.name for one in mapping.assignments}


def reasons(mapping):
    return {drop.name: drop.reason for drop in mapping.drops}


def test_without_a_choice_both_are_shown_with_what_they_cover():
    with pytest.raises(MappingError) as error:
        assign(CHECKPOINT, GRAPH, NO_RULES)
    assert str(error.value) == (
        "the checkpoint has moving averages beside the variables; say which the bundle shall use:\n"
        f"  --weights ema  2 of 3 variables have an average ({EMA}); these keep their raw value: "
        "n/moving_mean\n"
        "  --weights raw  3 of 3 variables have a raw value\n"
        "  batch norm statistics: 0 of 1 have an average\n"
        "Take what the model is evaluated with: they give other predictions."
    )


def test_the_question_comes_with_everything_else_that_is_wrong():
    problem = match([*CHECKPOINT, spec("x")], [*GRAPH, read("y")], NO_RULES)[1]
    assert "no rule for    + x" in problem and "no source for  - y" in problem
    assert "--weights ema" in problem


def test_ema_takes_the_average_where_there_is_one_and_says_where_not():
    mapping = assign(CHECKPOINT, GRAPH, NO_RULES, "ema")
    assert sources(mapping) == {
        "n/w": f"n/w/{EMA}",
        "n/b": f"n/n/b/{EMA}",
        "n/moving_mean": "n/moving_mean",
    }
    assert reasons(mapping) == {
        "n/w": "raw value; its moving average is used (--weights ema)",
        "n/b": "raw value; its moving average is used (--weights ema)",
        "n/w/Momentum": "optimizer slot (Momentum)",
        "n/b/Momentum": "optimizer slot (Momentum)",
    }
    assert mapping.weights.to_json() == {
        "choice": "ema",
        "from_ema": 2,
        "raw": 1,
        "raw_variables": ["n/moving_mean"],
    }


def test_raw_drops_the_averages_with_the_reason():
    mapping = assign(CHECKPOINT, GRAPH, NO_RULES, "raw")
    assert sources(mapping) == {name: name for name in ("n/w", "n/b", "n/moving_mean")}
    assert reasons(mapping)[f"n/w/{EMA}"] == f"moving average ({EMA}); --weights raw was asked for"
    assert mapping.weights.to_json() == {"choice": "raw", "from_ema": 0, "raw": 3}


def test_a_saver_that_maps_averages_is_the_owners_choice():
    graph = [read("n/w", f"n/w/{EMA}"), read("n/b"), read("n/moving_mean")]
    mapping = assign(CHECKPOINT, graph, NO_RULES)
    assert sources(mapping)["n/w"] == f"n/w/{EMA}" and sources(mapping)["n/b"] == "n/b"
    assert reasons(mapping)["n/w"] == (
        "raw value; its moving average is used (by the graph's own saver)"
    )
    assert mapping.weights.to_json() == {
        "choice": "saver",
        "from_ema": 1,
        "raw": 2,
        "raw_variables": ["n/b", "n/moving_mean"],
    }


@pytest.mark.parametrize("weights, source", [("raw", "n/w"), ("ema", f"n/w/{EMA}")])
def test_a_choice_that_is_asked_for_overrules_the_saver(weights, source):
    graph = [read("n/w", f"n/w/{EMA}"), read("n/b"), read("n/moving_mean")]
    mapping = assign(CHECKPOINT, graph, NO_RULES, weights)
    assert sources(mapping)["n/w"] == source
    assert sources(mapping)["n/b"] == ("n/b" if weights == "raw" else f"n/n/b/{EMA}")


def test_a_checkpoint_without_averages_asks_nothing():
    mapping = assign([spec("w"), spec("w/Adam"), spec("w/Adam_1")], [read("w")], NO_RULES)
    assert mapping.weights.to_json() == {"choice": "only", "from_ema": 0, "raw": 1}


def test_averages_of_what_the_graph_does_not_read_ask_nothing():
    checkpoint = [spec("w"), spec("head/v"), spec(f"head/v/{EMA}")]
    rules = Rules(drops=(Drop("head/v", "another task"),))
    mapping = assign(checkpoint, [read("w")], rules)
    assert "moving average" in reasons(mapping)[f"head/v/{EMA}"]


def test_ema_without_any_average_is_an_error():
    with pytest.raises(MappingError, match="has no moving average of the graph's variables"):
        assign([spec("w")], [read("w")], NO_RULES, "ema")


def test_a_variable_that_the_graph_reads_under_its_own_name_is_nobodys_average():
    checkpoint = [spec("w"), spec("w/avg"), spec(f"w/{EMA}")]
    graph = [read("w"), read("w/avg")]
    mapping = assign(checkpoint, graph, NO_RULES, "ema")
    assert sources(mapping) == {"w": f"w/{EMA}", "w/avg": "w/avg"}
    assert assign(checkpoint[:2], graph, NO_RULES).weights.choice == "only"
    renamed = Rules(renames=(Rename("g/(.*)", r"\1"),))
    graph = [read("g/w"), read("g/w/avg")]
    assert assign(checkpoint[:2], graph, renamed).weights.choice == "only"


def test_what_is_not_read_is_no_raw_value_of_something_that_is():
    with pytest.raises(MappingError, match="no rule for    \\+ w  "):
        assign([spec("w"), spec("w/avg")], [read("w/avg")], NO_RULES)


def test_a_checkpoint_of_averages_alone_says_that_raw_values_are_missing():
    problem = match([spec(f"w/{EMA}")], [read("w")], NO_RULES)[1]
    assert "1 of 1 variables have an average" in problem
    assert "0 of 1 variables have a raw value; these have none: w" in problem
    mapping = assign([spec(f"w/{EMA}")], [read("w")], NO_RULES, "ema")
    assert sources(mapping) == {"w": f"w/{EMA}"}


def test_an_average_of_another_name_is_known_by_its_structure():
    mapping = assign([spec("w"), spec("w/polyak")], [read("w")], NO_RULES, "ema")
    assert sources(mapping) == {"w": "w/polyak"}


def test_a_name_that_can_be_a_slot_or_an_average_is_asked_about():
    checkpoint = [spec("w"), spec("w/Slow")]
    problem = match(checkpoint, [read("w")], NO_RULES)[1]
    assert "1 of 1 variables have an average (Slow)" in problem
    assert "Slow can be an optimizer as well" in problem
    assert sources(assign(checkpoint, [read("w")], NO_RULES, "ema")) == {"w": "w/Slow"}
    assert sources(assign(checkpoint, [read("w")], NO_RULES, "raw")) == {"w": "w"}


@pytest.mark.parametrize(
    "average",
    ["w/momentum", "w/gradual", "w/accumulated", "w/adam", "w/MyMomentum", "n/n/w/momentum"],
)
def test_a_name_like_an_optimizers_does_not_make_an_average_a_slot(average):
    name = "n/w" if average.startswith("n/") else "w"
    checkpoint = [spec(name), spec(average)]
    assert "can be an optimizer as well" in match(checkpoint, [read(name)], NO_RULES)[1]
    assert sources(assign(checkpoint, [read(name)], NO_RULES, "ema")) == {name: average}


TURN = (Transpose((1, 0)),)
TURNED = [spec("w1", (5, 3)), spec(f"w1/{EMA}", (5, 3)), spec("b"), spec(f"b/{EMA}")]
TURNED_GRAPH = [read("w", shape=(3, 5)), read("b")]


def turn(*names, steps=TURN):
    return Rules(transforms=(Transform("w", names, steps, "old layout"),))


def test_averages_of_a_transforms_source_are_asked_about():
    problem = match(TURNED, TURNED_GRAPH, turn("w1"))[1]
    assert "--weights ema  2 of 2 variables have an average" in problem
    assert "--weights raw  2 of 2 variables have a raw value\n" in problem
    by_saver = [read("w", shape=(3, 5)), read("b", f"b/{EMA}")]
    assert "--weights ema  2 of 2" in match(TURNED, by_saver, turn("w1"))[1]


@pytest.mark.parametrize("weights, suffix", [("raw", ""), ("ema", f"/{EMA}")])
def test_a_transforms_steps_are_taken_on_the_weights_that_were_asked_for(weights, suffix):
    mapping = assign(TURNED, TURNED_GRAPH, turn("w1"), weights)
    assert sources(mapping) == {"w": f"w1{suffix}", "b": f"b{suffix}"}
    assert [one.steps for one in mapping.assignments if one.target == "w"] == [TURN]
    expected = {
        "raw": {
            f"{name}/{EMA}": f"moving average ({EMA}); --weights raw was asked for"
            for name in ("w1", "b")
        },
        "ema": dict.fromkeys(("w1", "b"), "raw value; its moving average is used (--weights ema)"),
    }
    assert reasons(mapping) == expected[weights]


def test_a_transform_takes_averages_only_when_all_its_sources_have_one():
    parts = [spec("a"), spec(f"a/{EMA}"), spec("c")]
    graph = [read("w", shape=(4,)), read("b")]
    rules = turn("a", "c", steps=(Concat(0),))
    mapping = assign([*parts, *TURNED[2:]], graph, rules, "ema")
    assert mapping.weights.from_ema == ("b",) and mapping.weights.raw == ("w",)
    mapping = assign([*parts, spec(f"c/{EMA}"), *TURNED[2:]], graph, rules, "ema")
    made = {one.target: [piece.spec.name for piece in one.pieces] for one in mapping.assignments}
    assert made["w"] == [f"a/{EMA}", f"c/{EMA}"] and mapping.weights.raw == ()


def test_an_average_that_a_transform_names_itself_is_taken_as_it_is():
    mapping = assign(TURNED[:2], TURNED_GRAPH[:1], turn(f"w1/{EMA}"), "ema")
    assert sources(mapping) == {"w": f"w1/{EMA}"} and mapping.weights.from_ema == ("w",)


def test_two_averages_of_a_transforms_source_are_not_chosen_between():
    with pytest.raises(MappingError, match=r"w: which of .*w1/polyak is its average"):
        assign([*TURNED, spec("w1/polyak", (5, 3))], TURNED_GRAPH, turn("w1"), "ema")


def test_two_averages_of_one_variable_are_not_chosen_between():
    checkpoint = [spec("w"), spec(f"w/{EMA}"), spec("w/polyak")]
    with pytest.raises(MappingError, match=f"w: which of w/{EMA}, w/polyak is its average"):
        assign(checkpoint, [read("w")], NO_RULES, "ema")
    rules = Rules(drops=(Drop(".*/polyak", "an experiment"),))
    assert sources(assign(checkpoint, [read("w")], rules, "ema")) == {"w": f"w/{EMA}"}


def test_renames_reach_averages_through_their_variables():
    rules = Rules(renames=(Rename("n/(.*)", r"g/\1"),))
    mapping = assign(CHECKPOINT, GRAPH, rules, "ema")
    assert sources(mapping)["g/b"] == f"n/n/b/{EMA}"
    graph = [read("g/w"), read("g/b"), read("g/moving_mean")]
    assert sources(assign(CHECKPOINT, graph, rules, "ema"))["g/w"] == f"n/w/{EMA}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """y = x * w, with w = 2 and its average 5: a PREDICT .meta and its checkpoint."""
    folder = tmp_path_factory.mktemp("ema")
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 1], name="x")
        with tf.variable_scope("net", use_resource=True):
            w = tf.get_variable("w", [1], initializer=tf.constant_initializer(2.0))
        tf.multiply(x, w, name="y")
        average = tf.train.ExponentialMovingAverage(0.5)
        average.apply([w])
        session.run(tf.global_variables_initializer())
        session.run(average.average(w).assign([5.0]))
        tf.train.Saver().save(session, str(folder / "m.ckpt"))
    return str(folder / "m.ckpt.meta")


TENSORS = {"inputs": {"x": "x:0"}, "outputs": {"y": "y:0"}}


@pytest.mark.parametrize("weights, expected", [("raw", 2.0), ("ema", 5.0)])
def test_the_bundle_has_the_values_that_were_asked_for(model, tmp_path, weights, expected):
    result = convert(
        ConvertOptions(source=model, out=str(tmp_path / "b"), weights=weights, **TENSORS)
    )
    assert result["weights"]["choice"] == weights
    bundle = Bundle.open(str(tmp_path / "b"))
    assert bundle.manifest["weights"] == result["weights"]
    found = tf.train.load_checkpoint(str(tmp_path / "b" / "variables" / "variables"))
    assert found.get_tensor("net/w").tolist() == np.array([expected]).tolist()


def test_inspection_asks_as_conversion_does(model):
    found = inspect(open_source(model), Request(**TENSORS))
    assert "--weights ema  1 of 1 variables have an average" in found.problems[0]
    found = inspect(open_source(model), Request(weights="ema", **TENSORS))
    assert found.problems == ()
    fates = {one.spec.name: one.fate for one in found.variables}
    assert fates[f"net/w/{EMA}"] == "renamed to net/w"
    assert found.to_json()["weights"] == {"choice": "ema", "from_ema": 1, "raw": 0}
    assert "weights: 1 moving averages, 0 raw values (--weights ema)" in as_text(found)
    assert "--weights ema" in found.command

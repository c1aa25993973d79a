"""Einsum and XlaEinsum as matrix products, against numpy.einsum."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, check
from conversion.surgery import einsum as surgery
from tests.conversion.graphs import add_function, calls, const, graph, node, run

F32 = tf.float32
SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "f": 3}


def einsum(equation, arrays, op="XlaEinsum", unknown=False, dtype=F32):
    """`y = einsum(in0, in1)` of fed inputs, whose sizes the graph knows, or not."""
    inputs = []
    for index, array in enumerate(arrays):
        shape = tf.TensorShape(None if unknown else array.shape).as_proto()
        inputs.append(
            node(f"in{index}", "Placeholder", dtype=dtype, shape=tf.AttrValue(shape=shape))
        )
    names = [one.name for one in inputs]
    attrs = {} if op == "XlaEinsum" else {"N": len(names)}
    made = node("y", op, *names, T=dtype, equation=equation.encode(), **attrs)
    return graph(*inputs, made)


def operated(before):
    after, count = surgery.einsum(GraphView(before))
    check(after, "einsum")
    return after, count


def computed(after, arrays):
    return run(after, "y:0", {f"in{i}:0": array for i, array in enumerate(arrays)})


def arrays_for(equation, random):
    inputs = equation.replace(" ", "").partition("->")[0].split(",")
    return [
        random.randint(-4, 5, [SIZES[label] for label in part]).astype(np.float32)
        for part in inputs
    ]


def ops(graph_def):
    return sorted(one.op for one in graph_def.node if one.op not in ("Placeholder", "Const"))


def random_equation(random):
    """Two operands of up to four dimensions; each label kept or summed at random."""
    parts = [
        "".join(random.permutation(list(SIZES))[: random.randint(0, 5)].tolist()) for _ in range(2)
    ]
    labels = sorted(set("".join(parts)))
    kept = [label for label in random.permutation(labels).tolist() if random.rand() < 0.6]
    return f"{parts[0]},{parts[1]}->{''.join(kept)}"


@pytest.mark.parametrize("unknown", [False, True])
def test_random_equations_of_two_operands_give_what_numpy_gives(unknown):
    """Small integers, so that every sum is exact in whatever order it is taken."""
    random = np.random.RandomState(11 + unknown)
    for _ in range(60):
        equation = random_equation(random)
        arrays = arrays_for(equation, random)
        after, count = operated(einsum(equation, arrays, unknown=unknown))
        assert count == 1 and "Einsum" not in ops(after), equation
        found, expected = computed(after, arrays), np.einsum(equation, *arrays)
        assert found.shape == expected.shape, equation
        assert np.array_equal(found, expected), equation


@pytest.mark.parametrize(
    "equation, expected",
    [
        ("ab,bc->ac", ["MatMul"]),
        ("ab,cb->ac", ["MatMul"]),  # transposed by the product itself
        ("ba,bc->ac", ["MatMul"]),
        ("ab,bc->ca", ["MatMul"]),  # the operands change places
        ("abc,adc->abd", ["BatchMatMulV2"]),
        ("abcd,abed->abce", ["BatchMatMulV2"]),
        ("abc,cd->abd", ["MatMul", "Reshape", "Reshape"]),
        ("abc,cde->abde", ["MatMul", "Reshape", "Reshape", "Reshape"]),  # a dense layer of heads
        ("abcd,cde->abe", ["MatMul", "Reshape", "Reshape", "Reshape"]),
        # ALBERT's attention: transposed where its memory layout asks for it, and not more
        ("abcd,aecd->acbe", ["BatchMatMulV2", "Transpose", "Transpose"]),
        ("acbe,aecd->abcd", ["BatchMatMulV2", "Transpose", "Transpose"]),
    ],
)
def test_no_more_is_moved_than_the_equation_asks_for(equation, expected):
    random = np.random.RandomState(5)
    arrays = arrays_for(equation, random)
    after, _ = operated(einsum(equation, arrays))
    assert ops(after) == sorted(expected)
    assert np.array_equal(computed(after, arrays), np.einsum(equation, *arrays))


def test_a_graph_traced_for_one_batch_size_runs_with_another_once_its_input_is_relaxed():
    random = np.random.RandomState(6)
    arrays = arrays_for("abc,cde->abde", random)
    after, _ = operated(einsum("abc,cde->abde", arrays))
    after.node[0].attr["shape"].shape.dim[0].size = -1
    more = [np.concatenate([arrays[0]] * 3), arrays[1]]
    assert np.array_equal(computed(after, more), np.einsum("abc,cde->abde", *more))


@pytest.mark.parametrize(
    "equation", ["ab->ba", "abc->b", "ab->", "cab->bc", "a...->...a", "...ab->...ba"]
)
def test_one_operand_is_transposed_and_summed(equation):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    letters = equation.partition("->")[0]
    array = array[0] if len(letters) == 2 else array
    after, count = operated(einsum(equation, [array], op="Einsum"))
    assert count == 1 and "Einsum" not in ops(after)
    assert np.array_equal(computed(after, [array]), np.einsum(equation, array))


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("...ab,...bc->...ac", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("...ab,...bc->...ac", [(3, 4, 5), (2, 3, 5, 6)]),
        ("...ab,bc->...ac", [(2, 3, 4, 5), (5, 6)]),
        ("a...,ab->b...", [(4, 2, 3), (4, 5)]),
        ("...a,a...->...", [(2, 3, 4), (4, 3)]),
    ],
)
def test_dots_stand_for_any_number_of_dimensions(equation, shapes):
    random = np.random.RandomState(7)
    arrays = [random.randint(-4, 5, shape).astype(np.float32) for shape in shapes]
    after, count = operated(einsum(equation, arrays, op="Einsum"))
    assert count == 1 and "Einsum" not in ops(after)
    assert np.array_equal(computed(after, arrays), np.einsum(equation, *arrays))


def test_a_label_of_size_one_is_repeated_along_dots():
    arrays = [np.ones([1, 2, 3], np.float32), np.full([4, 3, 2], 2, np.float32)]
    after, _ = operated(einsum("...ab,...bc->...ac", arrays, op="Einsum"))
    assert np.array_equal(computed(after, arrays), np.full([4, 2, 2], 6))


def test_dots_for_an_unknown_number_of_dimensions_stay_an_einsum():
    arrays = [np.ones([2, 2, 3], np.float32), np.ones([3, 4], np.float32)]
    after, count = operated(einsum("...ab,bc->...ac", arrays, op="Einsum", unknown=True))
    assert (count, ops(after)) == (0, ["Einsum"])


@pytest.mark.parametrize("equation", ["aab,bc->ac", "aa,ab->b"])
def test_a_diagonal_stays_an_einsum_which_has_a_kernel(equation):
    random = np.random.RandomState(8)
    arrays = arrays_for(equation, random)
    after, count = operated(einsum(equation, arrays))
    assert (count, ops(after)) == (1, ["Einsum"])
    assert np.array_equal(computed(after, arrays), np.einsum(equation, *arrays))


def test_a_chain_is_rewritten_with_the_shapes_that_each_link_passes_on():
    first = einsum("abc,cd->abd", [np.ones([2, 3, 4]), np.ones([4, 5])])
    second = node("z", "XlaEinsum", "y", "in1", T=F32, equation=b"abd,cd->abc")
    after, count = operated(graph(*first.node, second))
    assert count == 2
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(after, name="")
        assert imported.get_tensor_by_name("z:0").shape.as_list() == [2, 3, 4]


@pytest.mark.parametrize("equation", ["ab,bc->ac", "ab,bc->cab", "aa,ab->b"])
def test_float16_and_a_function_are_no_obstacle(equation):
    half = tf.float16 if "aa" not in equation else F32
    a, b = np.arange(9).reshape(3, 3), np.arange(12).reshape(3, 4)
    expected = np.einsum(equation, a, b)
    before = graph(
        const("a", a, half),
        const("b", b, half),
        node("y", "PartitionedCall", "a", "b", f=calls("f"), Tin=[half] * 2, Tout=[half]),
    )
    body = [
        node("x", "XlaEinsum", "p", "q", T=half, equation=equation.encode()),
        node("z", "Neg", "x:product:0", T=half),
    ]
    function = add_function(before, "f", ["p", "q"], {"out": "z:y:0", "raw": "x:product:0"}, body)
    for argument in [*function.signature.input_arg, *function.signature.output_arg]:
        argument.type = half.as_datatype_enum
    before.node[2].attr["Tout"].list.type.append(half.as_datatype_enum)
    after, count = operated(before)
    assert count == 1
    assert np.array_equal(run(after, ["y:0", "y:1"]), [-expected, expected])


def test_what_tf_einsum_writes_in_a_tpu_context_is_rewritten():
    with tf.Graph().as_default() as built:
        a = tf.placeholder(F32, [2, 3, 4], name="in0")
        b = tf.placeholder(F32, [4, 5], name="in1")

        def infer(a, b):
            return tf.einsum("bfn,nd->bfd", a, b)

        tf.tpu.rewrite(infer, [a, b])
        found = [one for one in built.as_graph_def().node if one.op == "XlaEinsum"]
    assert len(found) == 1
    found[0].name, found[0].input[:] = "y", ["in0", "in1"]
    arrays = [np.ones([2, 3, 4], np.float32), np.ones([4, 5], np.float32)]
    after, _ = operated(graph(*einsum("bfn,nd->bfd", arrays).node[:2], found[0]))
    assert np.array_equal(computed(after, arrays), np.full([2, 3, 5], 4))

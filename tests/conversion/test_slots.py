"""What every optimizer of TF 1.15 saves beside the model: recognised, dropped with its reason."""

from __future__ import annotations

import pytest

from batchinfer.tf1 import tf
from conversion.weights.checkpoint import read_specs
from conversion.weights.matching import match
from conversion.weights.names import NO_RULES
from conversion.weights.shadows import find_shadows
from conversion.weights.specs import GraphVariable, VariableSpec


def contrib():
    import tensorflow.contrib.opt as opt  # only 1.x has it

    return opt


def loss_scaled():
    from tensorflow.contrib.mixed_precision import (
        ExponentialUpdateLossScaleManager,
        LossScaleOptimizer,
    )

    return LossScaleOptimizer(tf.train.AdamOptimizer(), ExponentialUpdateLossScaleManager(8, 10))


def shampoo_with_decay():
    made = contrib().extend_with_decoupled_weight_decay(contrib().ShampooOptimizer)
    return made(0.01)


train, keras = tf.train, tf.keras.optimizers

# Optimizer, entries that it adds for two variables, and the name that the reasons give.
OPTIMIZERS = [
    (lambda: train.GradientDescentOptimizer(0.1), 0, ""),
    (lambda: train.MomentumOptimizer(0.1, 0.9), 2, "Momentum"),
    (lambda: train.AdamOptimizer(), 6, "Adam"),
    (lambda: train.AdamOptimizer(name="Mine"), 6, "Mine"),  # two slots: no average
    (lambda: tf.tpu.CrossShardOptimizer(train.AdamOptimizer())._opt, 6, "Adam"),
    (lambda: contrib().LazyAdamOptimizer(), 6, "Adam"),
    (lambda: contrib().NadamOptimizer(), 6, "Adam"),
    (lambda: contrib().AdamWOptimizer(0.01), 6, "AdamW"),
    (lambda: contrib().MomentumWOptimizer(0.01, 0.1, 0.9), 2, "MomentumW"),
    (shampoo_with_decay, 5, "Shampoo"),
    (lambda: contrib().AdaMaxOptimizer(), 5, "AdaMax"),
    (lambda: contrib().AdamGSOptimizer(), 4, "Adam"),
    (lambda: train.RMSPropOptimizer(0.1, momentum=0.9), 4, "RMSProp"),
    (lambda: train.RMSPropOptimizer(0.1, centered=True), 6, "RMSProp"),
    (lambda: train.AdagradOptimizer(0.1), 2, "Adagrad"),
    (lambda: train.AdagradDAOptimizer(0.1, train.get_global_step()), 4, "AdagradDA"),
    (lambda: contrib().RegAdagradOptimizer(0.1), 2, "RegAdagrad"),
    (lambda: train.AdadeltaOptimizer(0.1), 4, "Adadelta"),
    (lambda: train.FtrlOptimizer(0.1), 4, "Ftrl"),
    (lambda: train.ProximalAdagradOptimizer(0.1), 2, "ProximalAdagrad"),
    (lambda: contrib().LARSOptimizer(0.1), 2, "LARSOptimizer"),
    (lambda: contrib().PowerSignOptimizer(), 2, "PowerSignOptimizer"),
    (lambda: contrib().AddSignOptimizer(), 2, "AddSignOptimizer"),
    (lambda: contrib().ShampooOptimizer(), 5, "Shampoo"),  # slots of other shapes
    (lambda: contrib().GGTOptimizer(), 4, "GGT"),
    (lambda: contrib().DropStaleGradientOptimizer(train.AdamOptimizer(), 9), 7, "Adam"),
    (lambda: contrib().VariableClippingOptimizer(train.AdamOptimizer(), {}, 1.0), 6, "Adam"),
    (loss_scaled, 9, "Adam"),
    (lambda: train.experimental.enable_mixed_precision_graph_rewrite(train.AdamOptimizer()), 8,
     "Adam"),
    (lambda: keras.Adam(), 9, "Adam"),
    (lambda: keras.Adam(amsgrad=True, name="Mine"), 11, "Mine"),
    (lambda: keras.SGD(0.1, momentum=0.9), 6, "SGD"),
    (lambda: keras.RMSprop(centered=True, momentum=0.9), 11, "RMSprop"),
    (lambda: keras.Adagrad(), 5, "Adagrad"),
    (lambda: keras.Adadelta(), 8, "Adadelta"),
    (lambda: keras.Ftrl(), 10, "Ftrl"),
    (lambda: keras.Nadam(), 10, "Nadam"),
    (lambda: keras.Adamax(), 9, "Adamax"),
]  # fmt: skip


def trained(folder, make, scope):
    """The entries of a checkpoint of `w`, `b` and what the optimizer keeps."""
    with tf.Graph().as_default(), tf.Session() as session:
        train.get_or_create_global_step()
        with tf.variable_scope(scope, use_resource=True):
            w, b = tf.get_variable("w", [3, 4]), tf.get_variable("b", [4])
            loss = tf.reduce_sum(tf.square(tf.matmul(tf.ones([2, 3]), w) + b))
            optimizer = make()
            if hasattr(optimizer, "get_updates"):
                optimizer.get_updates(loss, [w, b])
            else:
                optimizer.minimize(loss, global_step=train.get_global_step())
        session.run(tf.global_variables_initializer())
        path = train.Saver().save(session, str(folder / "m"), write_meta_graph=False)
    return read_specs(path)


def reads(*names, shape=None):
    return [GraphVariable(VariableSpec(name, "float32", shape), name) for name in names]


@pytest.mark.parametrize("make, num_entries, name", OPTIMIZERS)
def test_what_an_optimizer_keeps_is_dropped_and_named(tmp_path, make, num_entries, name):
    mapping, problem = match(trained(tmp_path, make, ""), reads("w", "b"), NO_RULES)
    assert problem == ""
    assert [one.target for one in mapping.assignments] == ["b", "w"]
    reasons = {drop.name: drop.reason for drop in mapping.drops}
    assert reasons.pop("global_step") == "training step"
    assert len(reasons) == num_entries
    assert not name or any(f"({name})" in reason for reason in reasons.values()), reasons


def test_one_slot_of_a_name_of_ones_own_can_be_an_average_and_is_asked_about(tmp_path):
    specs = trained(tmp_path, lambda: train.MomentumOptimizer(0.1, 0.9, name="MyMomentum"), "")
    assert "MyMomentum can be an optimizer" in match(specs, reads("w", "b"), NO_RULES)[1]
    mapping, problem = match(specs, reads("w", "b"), NO_RULES, "raw")
    assert problem == "" and mapping.weights.choice == "raw"


@pytest.mark.parametrize("make", [train.AdamOptimizer, keras.Adam, lambda: keras.SGD(0.1, 0.9)])
def test_in_a_variable_scope_the_scope_comes_twice(tmp_path, make):
    mapping, problem = match(trained(tmp_path, make, "m"), reads("m/w", "m/b"), NO_RULES)
    assert problem == "" and len(mapping.assignments) == 2
    slots = [drop for drop in mapping.drops if "m/w" in drop.name]
    assert all("optimizer slot" in drop.reason for drop in slots) and slots


@pytest.mark.parametrize("scope", ["", "m", "net", "encoder", "a_scope_of_some_length/deep"])
def test_slots_of_parts_are_known_under_the_odd_names_that_tensorflow_gives_them(tmp_path, scope):
    """`net/table/t_0/Adam`, `encoder/table//part_1/Adam`: cut without regard to the scope."""
    with tf.Graph().as_default(), tf.Session() as session:
        train.get_or_create_global_step()
        with tf.variable_scope(scope, use_resource=True):
            table = tf.get_variable("table", [11], partitioner=tf.fixed_size_partitioner(11))
            loss = tf.reduce_sum(tf.convert_to_tensor(table))
            train.AdamOptimizer().minimize(loss)
        session.run(tf.global_variables_initializer())
        path = train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    name = f"{scope}/table" if scope else "table"
    mapping, problem = match(read_specs(path), reads(name), NO_RULES)
    assert problem == ""
    slots = [drop for drop in mapping.drops if drop.reason == "optimizer slot (Adam)"]
    # Without a scope they are one sliced variable; in `m` parts 0 and 10 share `m/table/0/Adam`.
    assert len(slots) == {"": 2, "m": 20}.get(scope, 22)


def spec(name, shape=(3, 4)):
    return VariableSpec(name, "float32", shape)


@pytest.mark.parametrize(
    "name, shape, reason",
    [
        ("w/adam_m", (3, 4), "optimizer slot (adam)"),  # BERT's AdamWeightDecay
        ("w/lamb_v", (3, 4), "optimizer slot (lamb)"),
        ("training/w/Adafactor", (3,), "optimizer slot (Adafactor)"),  # tensor2tensor: rows
        ("training/w/Adafactor_1", (4,), "optimizer slot (Adafactor)"),
        ("w_slot_vr", (3,), "optimizer slot (Adafactor)"),  # mesh-tensorflow
        ("w/SM3_1", (1, 4), "optimizer slot (SM3)"),
        ("training/Adam/w/m", (3, 4), "optimizer slot (Adam)"),  # Keras in a graph
        ("w/Adam/v", (3, 4), "optimizer slot (Adam)"),  # a TPU embedding table
        ("tpu_embedding_dummy_table_variable_t/Adam_1", (1,), "optimizer slot of a variable"),
        ("tpu_embedding_dummy_table_variable_t", (1,), "placeholder of a TPU embedding table"),
        ("loss_scale", (), "loss scale of training"),
        ("s/w/biased", (3, 4), "state of a zero-debiased moving average"),
        ("s/w/local_step", (), "state of a zero-debiased moving average"),
        ("beta1_power_1", (), "optimizer state (power of beta)"),
    ],
)
def test_other_trainers_are_known_by_their_names(name, shape, reason):
    mapping, problem = match([spec("w"), spec(name, shape)], reads("w"), NO_RULES)
    assert problem == ""
    assert mapping.drops[0].reason.startswith(reason)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("w/u", (1, 4)),  # spectral norm: not the variable's shape
        ("v/Mine", (3, 4)),  # there is no variable v
        ("wAdam", (3, 4)),
        ("Adam_w", (3, 4)),
    ],
)
def test_what_is_not_the_shadow_of_a_variable_needs_a_rule(name, shape):
    assert find_shadows([spec("w"), spec(name, shape)]) == {}
    assert "no rule for" in match([spec("w"), spec(name, shape)], reads("w"), NO_RULES)[1]


def test_a_variable_that_looks_like_a_slot_is_kept_when_the_graph_reads_it():
    checkpoint = [spec("w"), spec("w/Adam"), spec("w/Adam/Adam")]
    mapping, problem = match(checkpoint, reads("w", "w/Adam"), NO_RULES)
    assert problem == ""
    assert [one.target for one in mapping.assignments] == ["w", "w/Adam"]
    assert [drop.name for drop in mapping.drops] == ["w/Adam/Adam"]

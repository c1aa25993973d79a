"""A model_fn_builder as BERT's run_classifier has one, with its init_checkpoint and scaffold_fn."""

from __future__ import annotations

import collections
import json

import tensorflow as tf


class Config:
    """What bert_config.json holds."""

    def __init__(self, vocab_size, hidden_size):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size

    @classmethod
    def from_json_file(cls, path):
        with tf.gfile.GFile(path) as file:
            return cls(**json.load(file))


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
    assignment_map = collections.OrderedDict()
    names = {variable.op.name: variable for variable in tvars}
    for name, _ in tf.train.list_variables(init_checkpoint):
        if name in names:
            assignment_map[name] = name
    return assignment_map


def create_model(config, ids, num_labels, use_one_hot_embeddings):
    with tf.variable_scope("bert/embeddings"):
        table = tf.get_variable("word_embeddings", [config.vocab_size, config.hidden_size])
    if use_one_hot_embeddings:
        one_hot = tf.one_hot(tf.reshape(ids, [-1]), depth=config.vocab_size)
        x = tf.reshape(tf.matmul(one_hot, table), [-1, ids.shape[1].value, config.hidden_size])
    else:
        x = tf.gather(table, ids)
    weights = tf.get_variable("output_weights", [num_labels, config.hidden_size])
    return tf.matmul(tf.reduce_mean(x, axis=1), weights, transpose_b=True)


def model_fn_builder(
    bert_config,
    num_labels,
    init_checkpoint,
    learning_rate,
    num_train_steps,
    use_tpu,
    use_one_hot_embeddings,
):
    def model_fn(features, labels, mode, params):
        del labels, params
        logits = create_model(
            bert_config, features["input_ids"], num_labels, use_one_hot_embeddings
        )
        scaffold_fn = None
        if init_checkpoint:
            assignment = get_assignment_map_from_checkpoint(
                tf.trainable_variables(), init_checkpoint
            )
            if use_tpu:

                def tpu_scaffold():
                    tf.train.init_from_checkpoint(init_checkpoint, assignment)
                    return tf.train.Scaffold()

                scaffold_fn = tpu_scaffold
            else:
                tf.train.init_from_checkpoint(init_checkpoint, assignment)
        return tf.contrib.tpu.TPUEstimatorSpec(
            mode=mode,
            predictions={"probabilities": tf.nn.softmax(logits)},
            scaffold_fn=scaffold_fn,
        )

    return model_fn

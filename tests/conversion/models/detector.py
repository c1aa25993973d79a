"""A small detector as TPU repositories write it: anchors, two levels, NMS per class, four outputs.

Two ways of suppression: `padded`, tf.image's op under tf.map_fn over images and classes; and
`loop`, a tf.while_loop that takes the best box of each image in turn.
"""

from __future__ import annotations

import numpy as np

from batchinfer.tf1 import tf

NUM_CLASSES = 3
SIDE = 32  # pixels
STRIDES = (8, 16)  # pixels per cell, of each level
SIZES = (1.0, 1.5)  # anchors per cell, in strides
MAX_DETECTIONS = 6  # per image
TOP_K = 20  # boxes that enter suppression
IOU_THRESHOLD = 0.5
MIN_SCORE = 0.6
FEATURES = {"image": ("float32", (SIDE, SIDE, 3)), "scale": ("float32", ())}


def params():
    return {"suppression": "padded"}


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    return {
        "image": random.normal(size=(num_rows, SIDE, SIDE, 3)).astype(np.float32),
        "scale": random.uniform(0.5, 2.0, size=num_rows).astype(np.float32),
    }


def make_labels(num_rows, seed):
    """The class of every anchor; enough to train on, if not to detect."""
    size = (num_rows, len(anchors()))
    values = np.random.RandomState(seed).randint(0, NUM_CLASSES, size=size)
    return {"classes": values.astype(np.int32)}


def anchors():
    """Boxes (40, 4), float32: y and x of the upper left and lower right corner, in pixels."""
    boxes = []
    for stride in STRIDES:
        for y in range(SIDE // stride):
            for x in range(SIDE // stride):
                for size in SIZES:
                    middle, half = (np.array([y, x]) + 0.5) * stride, size * stride / 2
                    boxes.append([*(middle - half), *(middle + half)])
    return np.array(boxes, np.float32)


def conv(x, filters, strides=1, name=None, **kwargs):
    return tf.layers.conv2d(x, filters, 3, strides, "same", name=name, **kwargs)


def head(levels, per_anchor, name):
    """The same weights on each level -> (n, 40, per_anchor)."""
    found = []
    for level in levels:
        with tf.variable_scope(name, reuse=tf.AUTO_REUSE):
            x = tf.nn.relu(conv(level, 8, name="hidden"))
            x = conv(x, len(SIZES) * per_anchor, name="predict",
                     kernel_initializer=tf.random_normal_initializer(stddev=1.0))  # fmt: skip
        cells = x.shape[1].value * x.shape[2].value
        found.append(tf.reshape(x, [-1, cells * len(SIZES), per_anchor]))
    return tf.concat(found, axis=1)


def network(image):
    """(n, 32, 32, 3) -> class logits (n, 40, 3) and box offsets (n, 40, 4)."""
    with tf.variable_scope("detector"):
        x = tf.nn.relu(conv(image, 8, 2, name="c1"))
        x = tf.nn.relu(conv(x, 8, 2, name="c2"))
        fine = tf.nn.relu(conv(x, 8, 2, name="c3"))
        coarse = conv(fine, 8, 2, name="c4")
        fine += tf.image.resize_nearest_neighbor(coarse, [SIDE // 8, SIDE // 8])
        return head([fine, coarse], NUM_CLASSES, "classes"), head([fine, coarse], 4, "boxes")


def decoded(offsets):
    """Offsets (n, 40, 4) -> boxes (n, 40, 4) in pixels, inside of the image."""
    base = tf.constant(anchors())
    size = base[:, 2:] - base[:, :2]
    middle = base[:, :2] + size / 2 + 0.2 * offsets[..., :2] * size
    half = size * tf.exp(tf.clip_by_value(0.2 * offsets[..., 2:], -2.0, 2.0)) / 2
    return tf.clip_by_value(tf.concat([middle - half, middle + half], -1), 0.0, float(SIDE))


def suppressed_padded(boxes, scores):
    """One image: boxes (40, 4), scores (40, 3) -> boxes (6, 4), scores (6), classes (6), count."""

    def one_class(class_scores):
        best, order = tf.nn.top_k(class_scores, TOP_K)
        candidates = tf.gather(boxes, order)
        kept, count = tf.image.non_max_suppression_padded(
            candidates, best, MAX_DETECTIONS, IOU_THRESHOLD, MIN_SCORE, pad_to_max_output_size=True
        )
        valid = tf.cast(tf.range(MAX_DETECTIONS) < count, tf.float32)
        return tf.gather(candidates, kept) * valid[:, None], tf.gather(best, kept) * valid

    per_class = tf.map_fn(one_class, tf.transpose(scores), dtype=(tf.float32, tf.float32))
    found, order = tf.nn.top_k(tf.reshape(per_class[1], [-1]), MAX_DETECTIONS)
    classes = tf.where(found > 0, order // MAX_DETECTIONS + 1, tf.zeros_like(order))
    chosen = tf.gather(tf.reshape(per_class[0], [-1, 4]), order)
    return chosen, found, classes, tf.reduce_sum(tf.cast(found > 0, tf.int32))


def overlap(box, boxes):
    """Intersection over union of a box (4) with boxes (k, 4)."""
    low, high = tf.maximum(box[:2], boxes[:, :2]), tf.minimum(box[2:], boxes[:, 2:])
    both = tf.reduce_prod(tf.nn.relu(high - low), axis=1)
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return both / (tf.reduce_prod(box[2:] - box[:2]) + area - both + 1e-6)


def suppressed_loop(boxes, scores):
    """As `suppressed_padded`, but over all classes at once and with a loop in the graph."""
    best, order = tf.nn.top_k(tf.reduce_max(scores, axis=1), TOP_K)
    candidates = tf.gather(boxes, order)
    classes = tf.gather(tf.argmax(scores, axis=1, output_type=tf.int32) + 1, order)

    def more(index, left, _):
        return (index < MAX_DETECTIONS) & (tf.reduce_max(left) > MIN_SCORE)

    def take(index, left, taken):
        winner = tf.argmax(left, output_type=tf.int32)
        taken = taken.write(index, winner)
        near = overlap(tf.gather(candidates, winner), candidates) > IOU_THRESHOLD
        gone = near | (tf.range(TOP_K) == winner)
        return index + 1, tf.where(gone, tf.zeros_like(left), left), taken

    taken = tf.TensorArray(tf.int32, MAX_DETECTIONS, element_shape=[])  # zeros where not written
    count, _, taken = tf.while_loop(more, take, (0, best, taken), maximum_iterations=MAX_DETECTIONS)
    kept, valid = taken.stack(), tf.range(MAX_DETECTIONS) < count
    return (
        tf.gather(candidates, kept) * tf.cast(valid, tf.float32)[:, None],
        tf.gather(best, kept) * tf.cast(valid, tf.float32),
        tf.gather(classes, kept) * tf.cast(valid, tf.int32),
        count,
    )


def predictions(features, params):
    logits, offsets = network(features["image"])
    boxes = decoded(offsets) * features["scale"][:, None, None]
    scores = tf.sigmoid(logits)
    suppressed = suppressed_loop if params["suppression"] == "loop" else suppressed_padded
    found = tf.map_fn(
        lambda one: suppressed(*one), (boxes, scores),
        dtype=(tf.float32, tf.float32, tf.int32, tf.int32),
    )  # fmt: skip
    names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    return dict(zip(names, found))


def model_fn(features, labels, mode, params):
    if mode == tf.estimator.ModeKeys.PREDICT:
        found = predictions(features, params)
        outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)
    logits, offsets = network(features["image"])
    loss = tf.losses.sparse_softmax_cross_entropy(labels["classes"], logits)
    loss += 0.01 * tf.reduce_mean(tf.square(offsets))
    optimizer = tf.train.MomentumOptimizer(0.01, 0.9)
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(mode, loss=loss, train_op=update)

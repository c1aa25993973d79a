"""scikit-learn's 1,797 scanned handwritten digits, split once into training and held out."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

IMAGE_SHAPE = (8, 8, 1)
NUM_CLASSES = 10
HELD_OUT_SHARE = 0.2  # 360 of 1,797 images, the same share of each digit

Digits = namedtuple("Digits", "images labels")


def load():
    """The two parts as (training, held out), the same ones in every process.

    Returns:
        two `Digits`: images uint8 [n, 8, 8, 1] with values 0 to 16, labels int64 [n].
    """
    raw = load_digits()
    images = raw.images.astype(np.uint8).reshape((-1,) + IMAGE_SHAPE)
    train_x, held_out_x, train_y, held_out_y = train_test_split(
        images, raw.target, test_size=HELD_OUT_SHARE, stratify=raw.target, random_state=0
    )
    return Digits(train_x, train_y), Digits(held_out_x, held_out_y)

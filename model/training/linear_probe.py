"""The frozen recipe: features once, then only the last layer. Minutes where full training takes an hour."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.network.parts import extractor, head_of
from model.settings import TrainSettings
from model.training.best_epoch import scores
from model.training.class_weights import class_weights
from tfrecords.dataset import Dataset, record_count, training_counts
from tfrecords.progress import Progress
from tfrecords.records.reader import training_batches, validation_batches

REGULARIZATION = 0.1  # sklearn's C, for features of unit deviation; 0.01 to 1 differ by under 0.2 points on NEU


def fit_linear_probe(
    network: keras.Model, dataset: Dataset, settings: TrainSettings, progress: Progress
) -> dict[str, float]:
    """Fits the last layer of `network`, in place, as a logistic regression on the backbone's features.

    Sees every training picture `train.frozen_copies` times, each shifted anew. Deterministic.

    Returns: a row of history: epoch 1, `scores` of training, and of validation behind val_.
    """
    batches = training_batches(
        dataset, settings.fold, settings.batch_size, settings.seed, settings.shift_fraction, settings.cache_mb
    )
    validation = validation_batches(dataset, settings.fold, settings.batch_size, settings.cache_mb)
    call = open_network(to_litert(extractor(network)))
    counts = training_counts(dataset, settings.fold)
    total = settings.frozen_copies * sum(counts) + record_count(dataset) - sum(counts)
    done = 0
    progress(done, total, "features")

    def features(source: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
        nonlocal done
        parts, labels = [], []
        for images, batch_labels in source:
            parts.append(call(images.numpy()))
            labels.append(batch_labels.numpy())
            done += len(batch_labels)
            progress(done, total, "features")
        return np.concatenate(parts), np.concatenate(labels)

    # The first copy in its own light: of few copies it is the one most like what comes.
    lights = [0.0] + [settings.light_fraction] * (settings.frozen_copies - 1)
    copies = [features(batches(epoch, light)) for epoch, light in enumerate(lights)]
    x, y = (np.concatenate(parts) for parts in zip(*copies, strict=True))
    held_out = features(validation)
    kernel, bias = fit_last_layer(x, y, class_weights(counts, settings.class_weights))
    head_of(network).set_weights([kernel, bias])

    seen, unseen = (scores(softmax(each @ kernel + bias, axis=1), truth) for each, truth in ((x, y), held_out))
    return {"epoch": 1, **seen, **{f"val_{key}": value for key, value in unseen.items()}}


def fit_last_layer(features: np.ndarray, labels: np.ndarray, weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (F, classes) and bias (classes,) of a logistic regression on features (N, F), labels int (N,).

    weights: of the classes, each of which has pictures.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    regression = LogisticRegression(C=REGULARIZATION, max_iter=1000, class_weight=dict(enumerate(weights)))
    regression.fit((features - mean) / deviation, labels)
    # The scaling goes into the layer, so that the network has the same layers as after full training.
    kernel = (regression.coef_ / deviation).T
    bias = regression.intercept_ - mean @ kernel
    if len(regression.classes_) == 2:  # one row stands for two classes there
        kernel, bias = np.hstack([0 * kernel, kernel]), np.concatenate([0 * bias, bias])
    return kernel, bias

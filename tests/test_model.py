"""The network's shape, size and ability to learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lggseg_utils import data, model, preprocess, train
from lggseg_utils.settings import load_experiment


def test_the_base_papers_network_has_its_parameter_count():
    assert model.build_unet(load_experiment("paper")).count_params() == 7_760_097 == by_hand(32, 5)


def by_hand(filters, depth):
    """Parameters of the U-Net, added up level by level."""
    total, width = 0, [filters * 2**level for level in range(depth)]
    for level, out in enumerate(width):
        first = 3 if level == 0 else width[level - 1]
        total += (9 * first + 1) * out + (9 * out + 1) * out
    for level in range(depth - 1):
        total += (4 * width[level + 1] + 1) * width[level]
        total += (9 * 2 * width[level] + 1) * width[level] + (9 * width[level] + 1) * width[level]
    return total + width[0] + 1


@pytest.mark.parametrize(("filters", "depth"), [(32, 5), (16, 5), (4, 3)])
def test_parameters_match_a_count_by_hand(filters, depth):
    experiment = load_experiment("smoke", overrides={"filters": filters, "depth": depth})
    assert model.build_unet(experiment).count_params() == by_hand(filters, depth)


def test_output_is_a_probability_of_the_slices_size():
    predicted = model.build_unet(load_experiment("smoke")).predict(
        np.random.default_rng(0).random((2, 32, 32, 3)), verbose=0
    )
    assert predicted.shape == (2, 32, 32, 1) and predicted.dtype == np.float32
    assert (predicted >= 0).all() and (predicted <= 1).all()


def test_skip_connections_reach_the_output():
    network = model.build_unet(load_experiment("paper"))
    for level in range(1, 5):
        skip, up = network.get_layer(f"concat_{level}").input
        assert (
            skip.shape
            == up.shape
            == (None, 128 // 2 ** (level - 1), 128 // 2 ** (level - 1), 32 * 2 ** (level - 1))
        )


def test_settings_are_obeyed():
    experiment = load_experiment("smoke", overrides={"dropout": 0.0, "normalization": "batch"})
    kinds = [type(layer).__name__ for layer in model.build_unet(experiment).layers]
    assert "Dropout" not in kinds and kinds.count("BatchNormalization") == 10


def test_it_learns_four_slices_by_heart(cohort_folder):
    easy = {
        "filters": 8,
        "depth": 4,
        "dropout": 0.0,
        "normalization": "batch",
        "loss": "dice_crossentropy",
    }
    experiment = load_experiment("smoke", overrides={**easy, "learning_rate": 0.01})
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), experiment)
    four = dataset.slices["tumour_area"].nlargest(4).index
    train.set_up(experiment)
    network = train.compile_unet(experiment, 200)
    images, masks = (
        preprocess.minmax(dataset.images[four]),
        dataset.masks[four][..., None].astype("float32"),
    )
    dice = [
        network.train_on_batch(images, masks, return_dict=True)["dice_coef"] for _ in range(200)
    ]
    assert dice[-1] >= 0.95


def test_first_weights_follow_from_the_seed_whatever_else_draws_random_numbers():
    import random

    weights = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        random.seed(noise)
        network = model.build_unet(load_experiment("smoke", seed))
        weights.append(
            np.concatenate(
                [part.ravel() for part in network.get_weights() if part.dtype == np.float32]
            )
        )
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


def test_batch_normalisation_is_that_of_keras():
    x = tf.random.stateless_normal((8, 16, 16, 4), (1, 2), mean=3.0, stddev=2.0)
    weight = tf.random.stateless_normal((8, 16, 16, 4), (3, 4))
    found = {}
    for kind in (model.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, dtype="float32")
        for _ in range(3):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(weight * layer(x, training=True))
        gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        found[kind] = [
            *gradients,
            *layer.weights,
            layer(x, training=True),
            layer(x, training=False),
        ]
    for ours, theirs in zip(*found.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_dropout_has_its_rate_keeps_the_mean_and_draws_independently(rate):
    layer = model.Dropout(rate, seed=1, dtype="float32")
    values = tf.ones((64, 32, 32, 4))
    first, second = (layer(values, training=True).numpy() for _ in range(2))
    # 262,144 draws: five standard errors of the share are below 0.005.
    assert (first == 0).mean() == pytest.approx(rate, abs=0.005) and first.mean() == pytest.approx(
        1, abs=0.01
    )
    assert np.unique(first).tolist() == pytest.approx([0, 256 / round(256 * (1 - rate))], rel=1e-6)
    for one, other in (
        (first, second),
        (first[..., 0], first[..., 1]),
        (first[:, 1:], first[:, :-1]),
    ):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert np.array_equal(layer(values, training=False), values)


def test_dropout_follows_from_the_state_of_its_generator():
    layer = model.Dropout(0.3, seed=1, dtype="float32")
    state = layer.seed_generator.state.numpy()
    first = layer(tf.ones((2, 5, 5, 3)), training=True).numpy()
    layer.seed_generator.state.assign(state)
    assert np.array_equal(layer(tf.ones((2, 5, 5, 3)), training=True), first)

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


def small(**overrides):
    """A U-Net of two levels with normalisation and dropout."""
    settings = {"depth": 2, "dropout": 0.2, "normalization": "batch", **overrides}
    return model.build_unet(load_experiment("smoke", overrides=settings))


def test_a_level_is_two_convolutions_each_with_what_is_set():
    convolution = ["Conv2D", "BatchNormalization", "Activation", "Dropout"]
    level = 2 * convolution
    way_up = ["Conv2DTranspose", "Concatenate", *level, "Conv2D"]
    kinds = [type(layer).__name__ for layer in small().layers]
    assert kinds == ["InputLayer", *level, "MaxPooling2D", *level, *way_up]
    plain = [type(layer).__name__ for layer in small(dropout=0, normalization="none").layers]
    assert plain == [kind for kind in kinds if kind not in ("BatchNormalization", "Dropout")]


def test_activations_rates_and_momentum():
    network = small()
    for layer in network.layers:
        if isinstance(layer, keras.layers.Activation):
            assert layer.activation is keras.activations.relu
        if isinstance(layer, model.Dropout):
            assert layer.rate == 0.2
        if isinstance(layer, model.BatchNormalization):
            assert layer.momentum == 0.97
    assert network.get_layer("probability").activation is keras.activations.sigmoid


def test_first_weights_are_hes_before_relu_and_all_different():
    network = model.build_unet(load_experiment("paper"))
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3):
            spread = np.sqrt(2 / np.prod(layer.kernel.shape[:3]))
            assert np.std(layer.kernel) == pytest.approx(spread, rel=0.1), layer.name
            # He's normal distribution, not the uniform one, which ends at 1.73 of its spread.
            assert np.abs(layer.kernel).max() > 1.9 * spread
        elif layer.weights:
            assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
    kernels = [weight for weight in network.weights if weight.path.endswith("kernel")]
    assert len({np.asarray(kernel).ravel()[:3].tobytes() for kernel in kernels}) == len(kernels)
    seeds = [layer.seed for layer in small().layers if isinstance(layer, model.Dropout)]
    assert len(set(seeds)) == len(seeds) == 6


def test_skips_lead_from_the_end_of_each_level_down_to_the_same_level_up():
    network = model.build_unet(load_experiment("paper"))
    for level in range(1, 5):
        skip, up = network.get_layer(f"concat_{level}").input
        sources = [tensor._keras_history.operation.name for tensor in (skip, up)]
        assert sources == [f"down_{level}_2_dropout", f"up_{level}"]
        side = 128 // 2 ** (level - 1)
        assert skip.shape == up.shape == (None, side, side, 32 * 2 ** (level - 1))


def test_the_probability_is_float32_in_half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = small()
    finally:
        keras.config.set_dtype_policy(before)
    assert network.get_layer("up_1").compute_dtype == "bfloat16"
    assert network.get_layer("probability").compute_dtype == "float32"


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_average_is_the_mean_over_networks_and_mirror_images(mirrored):
    members = [model.build_unet(load_experiment("smoke", seed)) for seed in (0, 1)]
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    flips = [(y, x) for y in (1, -1) for x in (1, -1)] if mirrored else [(1, 1)]
    predicted = []
    for member in members:
        for y, x in flips:
            predicted.append(member.predict_on_batch(images[:, ::y, ::x])[:, ::y, ::x])
    network = model.average(members, mirrored)
    np.testing.assert_allclose(
        network.predict_on_batch(images), np.mean(predicted, axis=0), atol=1e-5
    )


def test_the_average_of_one_network_is_that_network():
    network = small()
    assert model.average([network], False) is network


def test_a_leaky_sigmoid_is_a_sigmoid_that_still_rises_where_float32_ends():
    logits = tf.constant([-100.0, -60.0, -3.0, 0.0, 15.0, 100.0])
    found = np.asarray(model.leaky_sigmoid(logits))
    wanted = 1 / (1 + np.exp(-np.float64([-60.4, -60, -3, 0, 15, 15.85])))
    assert found == pytest.approx(wanted, rel=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(tf.math.log(model.leaky_sigmoid(logits)))
    assert tape.gradient(total, logits)[0] > 0


def test_it_learns_four_slices_by_heart(cohort_folder):
    easy = {
        "filters": 8,
        "dropout": 0.0,
        "normalization": "batch",
        "loss": "dice_crossentropy",
        "learning_rate": 0.03,
    }
    experiment = load_experiment("smoke", overrides=easy)
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), experiment)
    four = dataset.slices["tumour_area"].nlargest(4).index
    train.set_up(experiment)
    network = train.compile_unet(experiment, 100)
    images = preprocess.minmax(dataset.images[four])
    masks = dataset.masks[four][..., None].astype("float32")
    for _ in range(100):
        scores = network.train_on_batch(images, masks, return_dict=True)
    assert scores["dice_coef"] >= 0.95


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

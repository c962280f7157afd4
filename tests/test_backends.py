"""Keras' backends: a network trains on JAX as it trains on TensorFlow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

# Normalisation, loss, and what is added to the last bias.
CASES = [
    ("none", "binary_crossentropy", 0),
    ("batch", "dice_crossentropy", 0),
    ("none", "binary_crossentropy", -200),
]

# Convolution kernels are drawn by NumPy: each backend draws its own first weights.
SCRIPT = f"""
CASES = {CASES}
import json
import numpy as np
from lggseg_utils import train
from lggseg_utils.settings import load_experiment

images, masks = np.random.default_rng(0).integers(0, 200, (48, 32, 32, 3), np.uint8), np.zeros((48, 32, 32), np.uint8)
for number in range(48):
    masks[number, number % 20 : number % 20 + 9, 8:20] = 1
images[masks > 0] += 50
for normalization, loss, bias in CASES:
    settings = {{"normalization": normalization, "loss": loss, "dropout": 0, "precision": "float32", "augmentation": "flip"}}
    experiment, rng = load_experiment("smoke", 0, settings), np.random.default_rng(0)
    train.set_up(experiment)
    network = train.compile_unet(experiment, 12)
    kernels = [rng.normal(0, 0.1, weight.shape) if weight.ndim == 4 else weight for weight in network.get_weights()]
    network.set_weights([*kernels[:-1], kernels[-1] + bias])
    batches = train.training_batches(images, masks, experiment, 0)
    print(json.dumps(network.fit(batches, epochs=4, verbose=0, shuffle=False, validation_data=batches).history))
"""


@pytest.fixture(scope="module")
def histories():
    """Return the histories of CASES on each backend: backend -> list of name -> list over epochs."""
    found = {}
    for backend in ("tensorflow", "jax"):
        command, environment = (
            [sys.executable, "-c", SCRIPT],
            {**os.environ, "KERAS_BACKEND": backend},
        )
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[backend] = [json.loads(line) for line in done.stdout.splitlines()[-len(CASES) :]]
    return found


@pytest.mark.parametrize(("case", "tolerance"), [(0, 1e-3), (1, 0.02)])
def test_a_network_trains_alike_on_jax_and_tensorflow(histories, case, tolerance):
    """With batch normalisation, the running variance differs a little (n or n - 1), and the validation with it."""
    plain, other = histories["tensorflow"][case], histories["jax"][case]
    assert set(plain) == set(other) and plain["loss"][-1] < plain["loss"][0]
    for name, values in plain.items():
        np.testing.assert_allclose(other[name], values, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_network_that_is_sure_of_background_still_learns(histories, backend):
    """Its probabilities are 0 in float32: with Keras' own cross-entropy on JAX, they would stay so."""
    losses = histories[backend][2]["loss"]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]

"""The base paper's enhanced U-Net (report, section 1-2; base paper, figure 2)."""

import random
from functools import partial

import keras
import pandas as pd
import tensorflow as tf
from keras import initializers, layers


@keras.saving.register_keras_serializable("lggseg_utils")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation over (n, height, width, channels), trained by TensorFlow's fused kernel.

    Keras composes it of a dozen operations, which on a CPU take a third of a small network's training. The kernel divides the
    running variance by n - 1 instead of n; nothing else differs.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch when training, by the running averages otherwise."""
        if not training or tf.config.list_physical_devices("GPU"):
            return super().call(inputs, training=training, mask=mask)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return normalized


@keras.saving.register_keras_serializable("lggseg_utils")
class Dropout(layers.Dropout):
    """Keras' dropout, drawn from sixteen random bits per value: on a CPU, Keras' float draws take a third of the training.

    The rate is rounded to 1/65536, and what is kept is divided by the share that is kept, as in Keras.
    """

    def call(self, inputs, training=False):
        """Set a share `rate` of the values to 0 when training; return them as they are otherwise."""
        if not training or not self.rate:
            return inputs
        dropped = round(self.rate * 2**16)
        shape, count = tf.shape(inputs), tf.size(inputs)
        seed = self.seed_generator.next()
        drawn = tf.random.stateless_uniform([(count + 1) // 2], seed, minval=None, maxval=None, dtype=tf.int32)
        bits = tf.reshape(tf.bitcast(drawn, tf.uint16), [-1])[:count]
        kept = tf.cast(tf.reshape(bits, shape) >= dropped, inputs.dtype)
        return inputs * kept * tf.cast(2**16 / (2**16 - dropped), inputs.dtype)


def build_unet(experiment):
    """Build the U-Net an `Experiment` describes.

    Input: float (n, size, size, 3), 0 to 1. Output: float32 probability of tumour (n, size, size, 1) for 'sigmoid', of
    background and tumour (n, size, size, 2) for 'softmax'. The first weights depend on the experiment's seed alone.
    """
    # Keras would draw its seeds from Python's global generator, which other threads use too.
    draw = partial(random.Random(experiment.seed).randint, 1, 10**9)
    bottom = experiment.depth - 1
    inputs = x = keras.Input((experiment.size, experiment.size, 3), name="image")
    skips = []
    for level in range(bottom):
        x = _level(x, experiment, level, "down", draw)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool_{level + 1}")(x)
    x = _level(x, experiment, bottom, "bottom", draw)
    for level in reversed(range(bottom)):
        filters, start = experiment.filters * 2**level, initializers.GlorotUniform(draw())
        x = layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer=start, name=f"up_{level + 1}")(x)
        x = layers.Concatenate(name=f"concat_{level + 1}")([skips[level], x])
        x = _level(x, experiment, level, "up", draw)
    classes, start = 1 if experiment.output == "sigmoid" else 2, initializers.GlorotUniform(draw())
    last = layers.Conv2D(
        classes, 1, activation=experiment.output, kernel_initializer=start, dtype="float32", name="probability"
    )
    return keras.Model(inputs, last(x), name="enhanced_unet")


def _level(x, experiment, level, side, draw):
    """Apply a level to x: two 3x3 convolutions, each with optional batch normalisation, ReLU and dropout.

    Our choices: weights start as He et al. proposed for ReLU, and a batch-norm momentum of 0.97, so that a short training
    can be validated. draw() gives a seed.
    """
    for number in (1, 2):
        name, filters = f"{side}_{level + 1}_{number}", experiment.filters * 2**level
        start = initializers.HeNormal(draw())
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer=start, name=f"{name}_conv")(x)
        if experiment.normalization == "batch":
            x = BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        if experiment.dropout:
            x = Dropout(experiment.dropout, seed=draw(), name=f"{name}_dropout")(x)
    return x


def layer_table(model):
    """Return a table of the layers with parameters: layer, output (height x width x channels), parameters, multiply_adds.

    Multiply-adds are those for one slice: for each output value of a convolution, kernel area times input channels; for a
    transposed 2x2 convolution with stride 2, input channels once.
    """
    rows = [
        (layer.name, "x".join(map(str, layer.output.shape[1:])), layer.count_params(), _multiply_adds(layer))
        for layer in model.layers
        if layer.count_params()
    ]
    return pd.DataFrame(rows, columns=["layer", "output", "parameters", "multiply_adds"])


def _multiply_adds(layer):
    """Return the multiply-adds of one layer for one slice; 0 for a normalisation, which can be folded away."""
    height, width, channels = layer.output.shape[1:]
    if isinstance(layer, layers.Conv2DTranspose):
        return height * width * channels * layer.input.shape[-1]
    if isinstance(layer, layers.Conv2D):
        return height * width * channels * layer.input.shape[-1] * layer.kernel_size[0] * layer.kernel_size[1]
    return 0

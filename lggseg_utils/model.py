"""The base paper's enhanced U-Net (report, section 1-2; base paper, figure 2)."""

import random
from functools import partial, reduce

import keras
import tensorflow as tf
from keras import initializers, layers, ops

# Whether the layers below use TensorFlow's fast kernels for a CPU. On a GPU, and with Keras' other backends, they are Keras' own.
CPU_KERNELS = keras.config.backend() == "tensorflow" and not tf.config.list_physical_devices("GPU")


@keras.saving.register_keras_serializable("lggseg_utils")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation over (n, height, width, channels), trained by TensorFlow's fused kernel.

    Keras composes it of a dozen operations, which on a CPU take a third of a small network's training. The kernel divides the
    running variance by n - 1 instead of n; nothing else differs.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch when training, by the running averages otherwise."""
        if not (training and CPU_KERNELS):
            return super().call(inputs, training=training, mask=mask)
        scale, offset = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
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
    """Keras' dropout, drawn from eight random bits per value: on a CPU, Keras' float draws take a third of the training.

    The rate is rounded to 1/256, and what is kept is divided by the share that is kept, as in Keras.
    """

    def call(self, inputs, training=False):
        """Set a share `rate` of the values to 0 when training; return them as they are otherwise."""
        if not (training and self.rate and CPU_KERNELS):
            return super().call(inputs, training=training)
        dropped, count = round(self.rate * 256), tf.size(inputs)
        drawn = tf.random.stateless_uniform(
            [(count + 3) // 4], self.seed_generator.next(), None, None, tf.int32
        )
        bits = tf.reshape(tf.bitcast(drawn, tf.uint8), [-1])[:count]
        kept = tf.cast(tf.reshape(bits >= dropped, tf.shape(inputs)), inputs.dtype)
        return inputs * (kept * tf.cast(256 / (256 - dropped), inputs.dtype))


@keras.saving.register_keras_serializable("lggseg_utils")
def leaky_sigmoid(logits):
    """Return the sigmoid of logits, whose excess below -60 and above 15 counts a hundredth; not needed with TensorFlow.

    Where float32 rounds a sigmoid to 0 or 1, its gradient is 0, and a network that is once sure of background everywhere stays so.
    """
    steep = ops.clip(logits, -60, 15)
    return ops.sigmoid(steep + 0.01 * (logits - steep))


SIGMOID = "sigmoid" if keras.config.backend() == "tensorflow" else leaky_sigmoid


def build_unet(experiment):
    """Build the U-Net that an `Experiment` describes.

    Input: float (n, size, size, 3), 0 to 1.
    Output: probability of tumour, float32 (n, size, size, 1).
    The first weights depend on seed, dropout and Keras' backend.
    """
    # Keras would take its seeds from Python's global generator.
    draw = partial(random.Random(experiment.seed).randint, 1, 10**9)
    size, bottom = experiment.size, experiment.depth - 1
    inputs = x = keras.Input((size, size, 3), name="image")
    skips = []
    for level in range(bottom):
        x = _level(x, experiment, level, "down", draw)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool_{level + 1}")(x)
    x = _level(x, experiment, bottom, "bottom", draw)
    for level, skip in reversed(list(enumerate(skips))):
        start = initializers.GlorotUniform(draw())
        up = {"kernel_initializer": start, "name": f"up_{level + 1}"}
        filters = experiment.filters * 2**level
        x = layers.Conv2DTranspose(filters, 2, strides=2, **up)(x)
        x = layers.Concatenate(name=f"concat_{level + 1}")([skip, x])
        x = _level(x, experiment, level, "up", draw)
    start = initializers.GlorotUniform(draw())
    last = {"activation": SIGMOID, "dtype": "float32", "name": "probability"}
    outputs = layers.Conv2D(1, 1, kernel_initializer=start, **last)(x)
    return keras.Model(inputs, outputs, name="enhanced_unet")


def _level(x, experiment, level, side, draw):
    """Apply two 3x3 convolutions, each with ReLU and, if set, more.

    Our choices: He et al.'s first weights for ReLU, and a batch-norm
    momentum of 0.97 for short trainings. draw() gives a seed.
    """
    filters = experiment.filters * 2**level
    for number in (1, 2):
        name = f"{side}_{level + 1}_{number}"
        start = initializers.HeNormal(draw())
        conv = {"padding": "same", "kernel_initializer": start}
        x = layers.Conv2D(filters, 3, **conv, name=f"{name}_conv")(x)
        if experiment.normalization == "batch":
            x = BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        if experiment.dropout:
            rate, seed = experiment.dropout, draw()
            x = Dropout(rate, seed=seed, name=f"{name}_dropout")(x)
    return x


def average(networks, mirrored):
    """Return one network: the mean probability of several, and if `mirrored` over a slice and its mirror images."""
    if len(networks) == 1 and not mirrored:
        return networks[0]
    for number, network in enumerate(networks):
        network.name = f"network_{number}"
    inputs = keras.Input(networks[0].input_shape[1:], name="image")
    mirrors = ((), (1,), (2,), (1, 2)) if mirrored else ((),)
    images = ops.concatenate([reduce(ops.flip, axes, inputs) for axes in mirrors], axis=0)
    parts = ops.split(sum(network(images) for network in networks), len(mirrors), axis=0)
    total = sum(reduce(ops.flip, axes, part) for axes, part in zip(mirrors, parts, strict=True))
    return keras.Model(inputs, total / (len(networks) * len(mirrors)), name="average")

"""The base paper's enhanced U-Net (report, section 1-2; base paper, figure 2)."""

import random

import keras
import tensorflow as tf
from keras import initializers, layers, ops

MIRRORS = ((), (1,), (2,), (1, 2))  # axes along which a slice is mirrored: none, y, x, both


def uses_cpu_kernels():
    """Return whether the layers below use TensorFlow's fast kernels for a CPU.

    On a GPU, and with Keras' other backends, they are Keras' own.
    """
    if keras.config.backend() != "tensorflow":
        return False
    return not tf.config.list_physical_devices("GPU")


@keras.saving.register_keras_serializable("lggseg_utils")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation of (n, height, width, channels) by TensorFlow's fused kernel.

    Keras composes the training step of a dozen operations, which on a CPU take a third of a small
    network's training. The kernel divides the running variance by n - 1 instead of n; nothing
    else differs.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch when training, by the running averages otherwise."""
        if not (training and uses_cpu_kernels()):
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
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        return normalized

    def _update(self, average, value):
        """Move a running average towards a batch's value."""
        average.assign(average * self.momentum + value * (1 - self.momentum))


@keras.saving.register_keras_serializable("lggseg_utils")
class Dropout(layers.Dropout):
    """Keras' dropout, drawn from eight random bits per value.

    On a CPU, Keras' float draws take a third of the training. The rate is rounded to 1/256, and
    what is kept is divided by the share that is kept, as in Keras.
    """

    def call(self, inputs, training=False):
        """Set a share `rate` of the values to 0 when training; else return them as they are."""
        if not (training and self.rate and uses_cpu_kernels()):
            return super().call(inputs, training=training)
        dropped = round(self.rate * 256)
        count = tf.size(inputs)
        seed = self.seed_generator.next()
        # Four values for each 32-bit integer.
        drawn = tf.random.stateless_uniform([(count + 3) // 4], seed, None, None, tf.int32)
        bits = tf.reshape(tf.bitcast(drawn, tf.uint8), [-1])[:count]
        kept = tf.cast(tf.reshape(bits >= dropped, tf.shape(inputs)), inputs.dtype)
        return inputs * (kept * tf.cast(256 / (256 - dropped), inputs.dtype))


@keras.saving.register_keras_serializable("lggseg_utils")
def leaky_sigmoid(logits):
    """Return the sigmoid of logits, whose excess below -60 and above 15 counts a hundredth.

    Where float32 rounds a sigmoid to 0 or 1, its gradient is 0, and a network that is once sure
    of background everywhere stays so. With TensorFlow it is not needed.
    """
    steep = ops.clip(logits, -60, 15)
    return ops.sigmoid(steep + 0.01 * (logits - steep))


def build_unet(experiment):
    """Build the U-Net that an `Experiment` describes.

    Input: float (n, size, size, 3), 0 to 1.
    Output: probability of tumour, float32 (n, size, size, 1).
    The first weights depend on seed, dropout and Keras' backend.
    """
    draw_seed = _seeds(experiment.seed)
    inputs = keras.Input((experiment.size, experiment.size, 3), name="image")
    x = inputs
    skips = []
    for level in range(experiment.depth - 1):
        x = _level(x, experiment, level, "down", draw_seed)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool_{level + 1}")(x)
    x = _level(x, experiment, experiment.depth - 1, "bottom", draw_seed)
    for level in reversed(range(experiment.depth - 1)):
        x = layers.Conv2DTranspose(
            experiment.filters * 2**level,
            2,
            strides=2,
            kernel_initializer=initializers.GlorotUniform(draw_seed()),
            name=f"up_{level + 1}",
        )(x)
        x = layers.Concatenate(name=f"concat_{level + 1}")([skips[level], x])
        x = _level(x, experiment, level, "up", draw_seed)
    on_tensorflow = keras.config.backend() == "tensorflow"
    outputs = layers.Conv2D(
        1,
        1,
        activation="sigmoid" if on_tensorflow else leaky_sigmoid,
        kernel_initializer=initializers.GlorotUniform(draw_seed()),
        dtype="float32",
        name="probability",
    )(x)
    return keras.Model(inputs, outputs, name="enhanced_unet")


def _seeds(seed):
    """Return a function that returns another seed at each call, as follows from the first."""
    # Without seeds of their own, Keras' layers take them from Python's global generator.
    generator = random.Random(seed)
    return lambda: generator.randint(1, 10**9)


def _level(x, experiment, level, side, draw_seed):
    """Apply two 3x3 convolutions, each with ReLU and, if set, more.

    Our choices: He et al.'s first weights for ReLU, and a batch-norm
    momentum of 0.97 for short trainings. draw_seed() gives a seed.
    """
    filters = experiment.filters * 2**level
    for number in (1, 2):
        name = f"{side}_{level + 1}_{number}"
        start = initializers.HeNormal(draw_seed())
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            kernel_initializer=start,
            name=f"{name}_conv",
        )(x)
        if experiment.normalization == "batch":
            x = BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        if experiment.dropout:
            x = Dropout(
                experiment.dropout,
                seed=draw_seed(),
                name=f"{name}_dropout",
            )(x)
    return x


def average(networks, mirrored):
    """Return one network: the mean probability of several networks.

    networks: a list of networks of one input shape, as `build_unet`'s; mirrored: whether each
    also predicts a slice's three mirror images.
    """
    if len(networks) == 1 and not mirrored:
        return networks[0]
    for number, network in enumerate(networks):
        network.name = f"network_{number}"
    mirrors = MIRRORS if mirrored else MIRRORS[:1]
    inputs = keras.Input(networks[0].input_shape[1:], name="image")
    images = ops.concatenate([_mirror(inputs, axes) for axes in mirrors], axis=0)
    predicted = ops.split(sum(network(images) for network in networks), len(mirrors), axis=0)
    total = sum(_mirror(part, axes) for part, axes in zip(predicted, mirrors, strict=True))
    return keras.Model(inputs, total / (len(networks) * len(mirrors)), name="average")


def _mirror(images, axes):
    """Mirror images (n, height, width, channels) along each of the axes."""
    for axis in axes:
        images = ops.flip(images, axis)
    return images

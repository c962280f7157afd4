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

    Keras puts it together from a dozen operations, which on a CPU take a third of a small network's training. The kernel divides
    the running variance by n - 1 in place of n; nothing else differs.
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


def build_unet(experiment):
    """Build the U-Net an `Experiment` describes.

    Input: float (n, size, size, 3 (2 context + 1)), 0 to 1. Output: float32 probability of tumour (n, size, size, 1) for
    'sigmoid', of background and tumour (n, size, size, 2) for 'softmax'. A level is twice a 3x3 convolution,
    ReLU and dropout; levels are joined by 2x2 max-pooling on the way down, by a 2x2 transposed convolution
    and concatenation on the way up. The first weights are a function of the experiment's seed alone.
    """
    # Keras would take its seeds from Python's global generator, which other threads (those of Dask, say) use too.
    draw = partial(random.Random(experiment.seed).randint, 1, 10**9)
    channels = 3 * (2 * experiment.context + 1)
    inputs = x = keras.Input((experiment.size, experiment.size, channels), name="image")
    skips = []
    for level in range(experiment.depth - 1):
        skips.append(_level(x, experiment, level, "down", draw))
        x = layers.MaxPooling2D(2, name=f"pool_{level + 1}")(skips[-1])
    x = _level(x, experiment, experiment.depth - 1, "bottom", draw)
    for level in reversed(range(experiment.depth - 1)):
        start = initializers.GlorotUniform(draw())
        x = layers.Conv2DTranspose(
            experiment.filters * 2**level, 2, strides=2, kernel_initializer=start, name=f"up_{level + 1}"
        )(x)
        x = layers.Concatenate(name=f"concat_{level + 1}")([skips[level], x])
        x = _level(x, experiment, level, "up", draw)
    classes = 1 if experiment.output == "sigmoid" else 2
    start = initializers.GlorotUniform(draw())
    outputs = layers.Conv2D(
        classes, 1, activation=experiment.output, kernel_initializer=start, dtype="float32", name="probability"
    )(x)
    return keras.Model(inputs, outputs, name="enhanced_unet")


def _level(x, experiment, level, side, draw):
    """Two 3x3 convolutions, each with optional normalisation, ReLU and dropout.

    Weights start as He et al. proposed for ReLU; a normalisation follows its running averages within some thirty steps,
    so that short trainings can be validated. Both are our choices. draw() gives a seed.
    """
    for number in (1, 2):
        name = f"{side}_{level + 1}_{number}"
        start = initializers.HeNormal(draw())
        x = layers.Conv2D(
            experiment.filters * 2**level, 3, padding="same", kernel_initializer=start, name=f"{name}_conv"
        )(x)
        if experiment.normalization == "batch":
            x = BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        if experiment.dropout:
            x = layers.Dropout(experiment.dropout, seed=draw(), name=f"{name}_dropout")(x)
    return x


def layer_table(model):
    """Table of the layers with parameters: layer, output (height x width x channels), parameters, multiply_adds.

    Multiply-adds are counted for one slice: for each output value of a convolution, kernel area times input
    channels; for a transposed 2x2 convolution with stride 2, input channels once.
    """
    rows = []
    for layer in model.layers:
        if layer.count_params():
            rows.append(
                {
                    "layer": layer.name,
                    "output": "x".join(map(str, layer.output.shape[1:])),
                    "parameters": layer.count_params(),
                    "multiply_adds": _multiply_adds(layer),
                }
            )
    return pd.DataFrame(rows)


def _multiply_adds(layer):
    """Multiply-adds of one layer for one slice; 0 for a normalisation, which can be folded away."""
    height, width, channels = layer.output.shape[1:]
    if isinstance(layer, layers.Conv2DTranspose):
        return height * width * channels * layer.input.shape[-1]
    if isinstance(layer, layers.Conv2D):
        return height * width * channels * layer.input.shape[-1] * layer.kernel_size[0] * layer.kernel_size[1]
    return 0


def activations(model, image):
    """What each level of a U-Net answers to one slice, on average over its filters.

    image: float (1, size, size, 3), scaled. Returns a dictionary: 'down 1', ..., 'bottom', ..., 'up 1' and 'probability'
    (of tumour) -> float32 (height, width).
    """
    names = [layer.name for layer in model.layers if layer.name.endswith("_2_relu")]
    probe = keras.Model(model.input, [*(model.get_layer(name).output for name in names), model.output])
    *levels, probability = [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))[0] for x in probe(image)]
    titles = [" ".join(name.split("_")[:2]) if "bottom" not in name else "bottom" for name in names]
    return {
        **{title: answer.mean(-1) for title, answer in zip(titles, levels, strict=True)},
        "probability": probability[..., -1],
    }


def receptive_fields(depth):
    """Receptive field on the way down: a list of (level, side in input pixels) after each level's convolutions.

    Each 3x3 convolution adds two steps of the level's stride, each 2x2 pooling one (Araujo, Norris and Sim,
    "Computing receptive fields of convolutional neural networks", Distill 2019).
    """
    field, fields = 1, []
    for level in range(depth):
        stride = 2**level
        field += 4 * stride
        fields.append((level + 1, field))
        field += stride
    return fields

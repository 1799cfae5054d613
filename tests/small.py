"""A network that is traced in a second, for tests of what surrounds one."""

import keras


def small(name, alpha, size_px, channels, head):
    """In place of a backbone: it has all that trainings have to agree on, variables and statistics of batches too."""
    scaled = hidden = keras.Input((size_px, size_px, channels), name="scaled")
    for number, filters in enumerate((8, 16)):
        hidden = keras.layers.Conv2D(filters, 5, strides=4, use_bias=False, name=f"convolution_{number}")(hidden)
        hidden = keras.layers.BatchNormalization(name=f"batch_norm_{number}")(hidden)
        hidden = keras.layers.ReLU(name=f"relu_{number}")(hidden)
    pooled = keras.layers.GlobalAveragePooling2D(name="features")(hidden)
    return keras.Model(scaled, pooled, name="small")

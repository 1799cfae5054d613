"""MobileNet without its top, which networks are built on and weights are loaded into."""

import keras


def mobilenet(alpha: float, size_px: int, channels: int, weights: str | None = None, head: str = "gap") -> keras.Model:
    """Keras' MobileNet without its top: float (B, size, size, channels), -1..1, to features (B, 1024 * alpha).

    head: "gap" averages the last maps (B, size / 32, size / 32, 1024 * alpha) over their places; "flatten" lays the
    places side by side, so that there are (size / 32) squared times as many features.

    Every layer has a name of its own: Keras would number them by what the process built before, and the numbers
    would stand in the model's file.
    """
    shape = (size_px, size_px, channels)
    scaled = keras.Input(shape, name="scaled")
    convolutions = keras.applications.MobileNet(
        input_shape=shape, input_tensor=scaled, alpha=alpha, include_top=False, weights=weights
    )
    layer = keras.layers.GlobalAveragePooling2D if head == "gap" else keras.layers.Flatten
    return keras.Model(scaled, layer(name="features")(convolutions.output), name="mobilenet")

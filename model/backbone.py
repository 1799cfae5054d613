"""MobileNet without its top, which networks are built on and weights are loaded into."""

import keras


def mobilenet(alpha: float, size_px: int, channels: int, weights: str | None = None) -> keras.Model:
    """Keras' MobileNet without its top: float (B, size, size, channels), -1..1, to features (B, 1024 * alpha).

    Every layer has a name of its own: Keras would number them by what the process built before, and the numbers
    would stand in the model's file.
    """
    shape = (size_px, size_px, channels)
    scaled = keras.Input(shape, name="scaled")
    convolutions = keras.applications.MobileNet(
        input_shape=shape, input_tensor=scaled, alpha=alpha, include_top=False, weights=weights
    )
    features = keras.layers.GlobalAveragePooling2D(name="features")(convolutions.output)
    return keras.Model(scaled, features, name="mobilenet")

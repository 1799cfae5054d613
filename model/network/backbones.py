"""The table of backbones: everything that the project knows of each. Free of TensorFlow, as settings are made of it.

A new backbone of keras.applications is a name and a row here, and nothing elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Scaling = tuple[float, float]  # factor and offset of a gray level 0..255
Shape = tuple[int, ...]


class BackboneName(StrEnum):
    """What train.backbone can be."""

    MOBILENET = "mobilenet"
    MOBILENET_V2 = "mobilenet_v2"
    MOBILENET_V3_SMALL = "mobilenet_v3_small"
    MOBILENET_V3_LARGE = "mobilenet_v3_large"
    EFFICIENTNET_V2_B0 = "efficientnet_v2_b0"


@dataclass(frozen=True)
class Backbone:
    """The convolutions of a network, as keras.applications builds them without their top.

    constructor: name of the function in keras.applications; also what people call the network.
    first_convolution: name of the layer that sees the picture.
    scaling: what the weights expect instead of gray levels, for R, G and B.
    widths: smallest and largest train.alpha; both 1 where the constructor has no alpha.
    imagenet: for each alpha with ImageNet weights, the pattern of the file that Keras caches them in.
    convolutions: how many there are, depthwise ones and those of squeeze and excitation included.
    kernels: for an alpha, the shapes of the first and the last convolution's kernels over RGB. No kernel has more
        filters than the last. By these and their number a weights file is known.
    options: further arguments of the constructor.
    """

    constructor: str
    first_convolution: str
    scaling: tuple[Scaling, Scaling, Scaling]
    widths: tuple[float, float]
    imagenet: Mapping[float, str]
    convolutions: int
    kernels: Callable[[float], tuple[Shape, Shape]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self, channels: int) -> list[tuple[Scaling, list[int]]]:
        """Input channels of the first convolution: of each the scaling, and the places in RGB of its kernels.

        channels: of the picture, 1 or 3. Over gray, colors that are scaled alike share an input channel; over RGB each
        has its own.
        """
        if channels == len(self.scaling):
            return [(each, [at]) for at, each in enumerate(self.scaling)]
        distinct = dict.fromkeys(self.scaling)
        return [(each, [at for at, other in enumerate(self.scaling) if other == each]) for each in distinct]

    def arguments(self, alpha: float) -> dict[str, Any]:
        """What the constructor is called with for a width."""
        return {**self.options, **({"alpha": alpha} if self.widths != ONE_WIDTH else {})}


def _round(filters: float) -> int:
    """To a multiple of 8, but not to less than nine tenths. Source: `_make_divisible` of TensorFlow's MobileNets."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _mobilenet_kernels(alpha: float) -> tuple[Shape, Shape]:
    return (3, 3, 3, int(32 * alpha)), (1, 1, int(1024 * alpha), int(1024 * alpha))


def _mobilenet_v2_kernels(alpha: float) -> tuple[Shape, Shape]:
    last = (1, 1, _round(int(320 * alpha)), _round(1280 * max(1.0, alpha)))
    return (3, 3, 3, _round(32 * alpha)), last


def _mobilenet_v3_kernels(filters: int) -> Callable[[float], tuple[Shape, Shape]]:
    """filters: of the last block, at alpha 1."""
    return lambda alpha: ((3, 3, 3, 16), (1, 1, _round(filters * alpha), _round(6 * _round(filters * alpha))))


ONE_WIDTH = (1.0, 1.0)
ANY_WIDTH = (1 / 32, 2.0)  # MobileNet's first convolution has one filter then
MINUS_ONE_TO_ONE: tuple[Scaling, Scaling, Scaling] = ((1 / 127.5, -1),) * 3
# Mean and deviation of ImageNet's colors, 0..1.
STANDARDIZED: tuple[Scaling, Scaling, Scaling] = (
    (1 / (255 * 0.229), -0.485 / 0.229),
    (1 / (255 * 0.224), -0.456 / 0.224),
    (1 / (255 * 0.225), -0.406 / 0.225),
)
BACKBONES: Mapping[BackboneName, Backbone] = {
    # Howard et al., arXiv:1704.04861
    BackboneName.MOBILENET: Backbone(
        constructor="MobileNet",
        first_convolution="conv1",
        scaling=MINUS_ONE_TO_ONE,
        widths=ANY_WIDTH,
        imagenet={
            alpha: f"mobilenet_{text}_*_no_top*"
            for alpha, text in ((0.25, "2_5"), (0.5, "5_0"), (0.75, "7_5"), (1.0, "1_0"))
        },
        convolutions=27,
        kernels=_mobilenet_kernels,
    ),
    # Sandler et al., arXiv:1801.04381
    BackboneName.MOBILENET_V2: Backbone(
        constructor="MobileNetV2",
        first_convolution="Conv1",
        scaling=MINUS_ONE_TO_ONE,
        widths=ANY_WIDTH,
        imagenet={alpha: f"mobilenet_v2_*_{alpha}_*_no_top*" for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)},
        convolutions=52,
        kernels=_mobilenet_v2_kernels,
    ),
    # Howard et al., arXiv:1905.02244
    BackboneName.MOBILENET_V3_SMALL: Backbone(
        constructor="MobileNetV3Small",
        first_convolution="conv",
        scaling=MINUS_ONE_TO_ONE,
        widths=ANY_WIDTH,
        imagenet={alpha: f"weights_mobilenet_v3_small_224_{alpha}_float_no_top*" for alpha in (0.75, 1.0)},
        convolutions=52,
        kernels=_mobilenet_v3_kernels(96),
        options={"include_preprocessing": False},
    ),
    BackboneName.MOBILENET_V3_LARGE: Backbone(
        constructor="MobileNetV3Large",
        first_convolution="conv",
        scaling=MINUS_ONE_TO_ONE,
        widths=ANY_WIDTH,
        imagenet={alpha: f"weights_mobilenet_v3_large_224_{alpha}_float_no_top*" for alpha in (0.75, 1.0)},
        convolutions=62,
        kernels=_mobilenet_v3_kernels(160),
        options={"include_preprocessing": False},
    ),
    # Tan and Le, arXiv:2104.00298
    BackboneName.EFFICIENTNET_V2_B0: Backbone(
        constructor="EfficientNetV2B0",
        first_convolution="stem_conv",
        scaling=STANDARDIZED,
        widths=ONE_WIDTH,
        imagenet={1.0: "efficientnetv2-b0_notop*"},
        convolutions=91,
        kernels=lambda alpha: ((3, 3, 3, 32), (1, 1, 192, 1280)),
        options={"include_preprocessing": False},
    ),
}

"""What a picture file says of itself before its pixels are decoded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Declared:
    """width, height: in pixels, before the picture is turned; bits: per sample; notes: what is taken leniently, each
    a sentence part that is the same for every such file, as "the first of several pages is taken".
    """

    width: int
    height: int
    bits: int = 8
    notes: tuple[str, ...] = ()

"""Why a picture can't be used."""

import re

from tfrecords.errors import sentence

COPY_AGAIN = "copy the picture again, or take it out with its row"
WITH_ROW = re.compile(r",? or take (it|the picture) out with its row$")


class PictureError(ValueError):
    """Bytes that are no usable picture. Its text says what was seen; `remedy` says what helps."""

    def __init__(self, seen: str, remedy: str = COPY_AGAIN):
        super().__init__(seen)
        self.remedy = remedy

    @property
    def remedy_alone(self) -> str:
        """What helps for a picture that stands in no table, as a sentence."""
        return sentence(WITH_ROW.sub("", self.remedy))

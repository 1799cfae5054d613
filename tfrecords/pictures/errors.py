"""Why a picture can't be used."""

COPY_AGAIN = "copy the picture again, or take it out with its row"


class PictureError(ValueError):
    """Bytes that are no usable picture. Its text says what was seen; `remedy` says what helps."""

    def __init__(self, seen: str, remedy: str = COPY_AGAIN):
        super().__init__(seen)
        self.remedy = remedy

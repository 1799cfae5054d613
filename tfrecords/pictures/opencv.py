"""OpenCV, loaded when it is first used: `from tfrecords.pictures.opencv import cv2`.

A command that finds everything made already decodes no picture, and loading OpenCV would be a fifteenth of its time.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cv2 as cv2
else:

    @cache
    def _loaded() -> Any:
        import cv2

        # Callers spread whole pictures over the cores; OpenCV's own threads would spin beside theirs, waiting for work.
        cv2.setNumThreads(1)
        return cv2

    class _Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(_loaded(), name)

    cv2 = _Late()

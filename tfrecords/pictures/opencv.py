"""OpenCV, loaded when it is first used: `from tfrecords.pictures.opencv import cv2`.

A command that finds everything made already decodes no picture, and loading OpenCV would be a fifteenth of its time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cv2 as cv2
else:

    class _Late:
        def __getattr__(self, name: str) -> Any:
            import cv2

            # Callers spread whole pictures over the cores; OpenCV's own threads would spin beside theirs, waiting.
            cv2.setNumThreads(1)
            value = getattr(cv2, name)
            setattr(self, name, value)  # found without this function from now on
            return value

    cv2 = _Late()

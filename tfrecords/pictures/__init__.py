"""From a picture file's bytes to the pixels of a record."""

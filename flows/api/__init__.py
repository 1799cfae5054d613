"""`aoi api`: answers over HTTP, one picture or several at a time, by the champion."""

"""`aoi watch`: a hot folder. Each picture that appears in it is answered once, by the champion."""

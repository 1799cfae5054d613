"""All that spreads, beside real engines, stores and servers: every role is killed once, every store has faults.

    make scale-full

The parts of scale.py, clusters.py, stores.py and servers.py in one table. Beside what .venv has it needs Java, Maven,
Go, PostgreSQL, and the extras aoi[gcs] and aoi[postgresql]. What is missing fails its part; with CI=true it is
skipped and said so. Jars and stores are fetched and built once, before the time is taken.
"""

import sys

import clusters
import scale
import servers
import stores
from lab import main

if __name__ == "__main__":
    sys.exit(main([*scale.PARTS, *clusters.PARTS, *stores.PARTS, *servers.PARTS], __doc__))

"""All that spreads, beside real engines, stores and servers: every role is killed once, every store has faults.

    make scale-full

The parts of scale.py, clusters.py, stores.py and servers.py in one table. What is missing fails its part; with CI=true
it is skipped and said so. Under 20 minutes once jars and servers are there.
"""

import sys

import clusters
import scale
import servers
import stores
from lab import main

if __name__ == "__main__":
    sys.exit(main([*scale.PARTS, *clusters.PARTS, *stores.PARTS, *servers.PARTS], __doc__))

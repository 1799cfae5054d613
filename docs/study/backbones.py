"""What each backbone costs: python docs/study/backbones.py prints the table of docs/architecture.md.

At 224 px, with random weights, which change neither size nor speed.
"""

import os
from time import perf_counter

import numpy as np

from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.network.backbones import BackboneName
from model.network.build import build
from model.settings import TrainSettings

SIZE, CLASSES, ROUNDS = 224, 6, 40
PICTURES = np.random.default_rng(0).integers(0, 256, (ROUNDS, SIZE, SIZE, 1), dtype=np.uint8)


def milliseconds(file: bytes) -> float:
    """Median of single pictures."""
    network, taken = open_network(file), []
    for at in range(ROUNDS):
        began = perf_counter()
        network(PICTURES[at : at + 1])
        taken.append(perf_counter() - began)
    return 1000 * float(np.median(taken[5:]))


print("| name | parameters | ms per picture | size of the .tflite file | in 8 bits: ms | size |")
print("|---|---|---|---|---|---|")
for name in BackboneName:
    network = build(TrainSettings(backbone=name, weights="none"), SIZE, CLASSES)
    cells = [f"`{name}`", f"{network.count_params():,}"]
    for calibration in ([], list(PICTURES[:20])):
        file = to_litert(network, calibration)
        cells += [f"{milliseconds(file):.1f}", f"{len(file) / 1e6:.1f} MB"]
    print(f"| {' | '.join(cells)} |", flush=True)
print(f"{os.cpu_count()} cores")

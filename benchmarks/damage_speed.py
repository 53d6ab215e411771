"""How many bit flips a second one core injects.

    OMP_NUM_THREADS=1 python benchmarks/damage_speed.py

prints, for float32 weights and medians of nine runs after a first one that is not counted: flips a second when their
exact list is made (`apply_to_model`), and when a broken copy of all weights is made too (`apply`).
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from planaria.damages import BitFlip
from planaria.streams import generator

RUNS = 9


def seconds(act: Callable[[], object]) -> float:
    took = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        answer = act()
        took.append(time.perf_counter() - start)
        del answer
    return median(took[1:])


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'weights':>12} {'flips':>11} {'direction':>9} {'list, million/s':>16} {'list and copy':>14}")
    for weights in (10**7, 10**8):
        weight = torch.randn(weights, generator=generator(0, "weight"))
        for flips, direction in ((10**6, "both"), (10**7, "both"), (10**7, "0to1")):
            damage = BitFlip(count=flips, direction=direction)
            listed = seconds(lambda: damage.apply_to_model({"w": weight}, generator(0, "flips")))  # noqa: B023
            copied = seconds(lambda: damage.apply(weight, generator(0, "flips")))  # noqa: B023
            rates = (flips / took / 1e6 for took in (listed, copied))
            print("{:>12,} {:>11,} {:>9} {:>16.0f} {:>14.0f}".format(weights, flips, direction, *rates))


if __name__ == "__main__":
    main()

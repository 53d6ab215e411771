"""Seconds that `protect` takes on the networks that come along: `python benchmarks/protect_speed.py`.

The first line is of a process that has just started: it also reads the pretrained rule and compiles kernels.
"""

import time

import torch

from planaria.guard import protect
from planaria.guard.tiers import TIERS
from planaria_lab.bench import tinymlp

RUNS = 3
BUDGET = 0.03


def main() -> None:
    print(f"{torch.get_num_threads()} threads, guards of {BUDGET:.0%}")
    for network in tinymlp.NETWORKS:
        state = tinymlp.shipped(network).state_dict()
        for tiers in (("digest", "parity", "rule"), tuple(TIERS)):
            for _ in range(RUNS):
                began = time.perf_counter()
                guard = protect(state, budget=BUDGET, tiers=tiers)
                seconds = time.perf_counter() - began
                (rule,) = guard.manifest.rules
                print(
                    f"TinyMLP {network}, {', '.join(tiers)}: {seconds:.2f} s, rule {rule.recipe} of "
                    f"{guard.tier_bytes()['rule']} bytes, R2 on held-out masks "
                    + ", ".join(f"{1 - of**2:.2f} at {at:.0%}" for at, of in zip(rule.rates, rule.errors, strict=True))
                )


if __name__ == "__main__":
    main()

"""Makes a large checkpoint of random weights, in shards, with little memory.

    python benchmarks/make_sharded_checkpoint.py FOLDER --gigabytes 4

The folder must not be there. The same size and seed give the same files.
"""

import argparse
from pathlib import Path

from planaria_lab.bench.guard_memory import make_sharded_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    made = make_sharded_checkpoint(given.folder, round(given.gigabytes * 1e9), seed=given.seed)
    print(f"{made.nbytes:,} bytes in {made.shards} shards; the largest tensor has {made.largest:,}")


if __name__ == "__main__":
    main()

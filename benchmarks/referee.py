"""Draws models, guards, damages and masks at random, repairs, and judges each repair by the intact model.

    OMP_NUM_THREADS=1 python benchmarks/referee.py --draws 100000 --seed 0 --jobs 2

prints each draw that broke a rule with the command that plays it again, then a summary, and writes the counts to
benchmarks/results/referee/, now and then also those so far. `--only SEED` plays one draw. The rules are those of
`tests/referee/judge.py`.
"""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent / "tests")  # not this folder: this file bears the package's name

from referee.play import play  # noqa: E402
from referee.tables import play_all, tally, written  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="draws from 10**9 times it on")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, help="play one draw alone")
    parser.add_argument("--quiet", action="store_true", help="only the summary")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "referee" / "referee.json")
    options = parser.parse_args()
    if options.only is not None:
        outcome = play(options.only)
        print(outcome)
        sys.exit(bool(outcome.violations))
    began = time.monotonic()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    outcomes = play_all(options.draws, seed=options.seed, jobs=options.jobs)
    counts = tally(outcomes, told=not options.quiet, save=lambda counts: options.output.write_text(written(counts)))
    print(counts)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

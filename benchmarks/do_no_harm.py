"""Four repairs that once wrote garbage over weights that were right, 200 times each.

    OMP_NUM_THREADS=1 python benchmarks/do_no_harm.py

prints, of each: runs in which a weight that was known to be good changed, and in which one that was right became wrong;
how many weights did; accuracy before and after the repair, in percent, as mean, 95 % interval and minimum; and that of
the intact model. Writes the runs to benchmarks/results/referee/do_no_harm.json.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent / "tests")  # not this folder: a script in it bears the package's name

from referee.reproductions import REPRODUCTIONS, Run  # noqa: E402

from planaria_lab.bench.statistics import Summary, summary  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "referee" / "do_no_harm.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':<52} {'good changed':>18} {'right made wrong':>18} {'before':>22} {'after':>22} {'intact':>7}")
    results = {}
    for reproduction in REPRODUCTIONS:
        runs = [reproduction.play(seed) for seed in range(options.runs)]
        before, after = (summary([[getattr(run, name) for run in runs]]) for name in ("before", "after"))
        good, wrong = (_runs_and_weights(runs, name) for name in ("good_changed", "right_made_wrong"))
        intact = reproduction.intact()
        print(f"{reproduction.name:<52} {good:>18} {wrong:>18} {_told(before):>22} {_told(after):>22} {intact:>7.2f}")
        results[reproduction.name] = {"intact": intact, "runs": [asdict(run) for run in runs]}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


def _runs_and_weights(runs: list[Run], name: str) -> str:
    counts = [getattr(run, name) for run in runs]
    return f"{sum(count > 0 for count in counts)} runs, {sum(counts):,}"


def _told(of: Summary) -> str:
    return f"{of.mean:.2f} ± {of.interval or 0:.2f}, {of.minimum:.2f}"


if __name__ == "__main__":
    main()

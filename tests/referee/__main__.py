"""`PYTHONPATH=tests python -m referee SEED...` plays draws again and tells what they are and what they broke."""

import sys

from referee.play import play

if __name__ == "__main__":
    outcomes = [play(int(seed)) for seed in sys.argv[1:]]
    for outcome in outcomes:
        print(outcome)
        print("" if outcome.violations else "  no rule broken")
    sys.exit(any(outcome.violations for outcome in outcomes))

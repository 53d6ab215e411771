"""Repairs that once wrote over weights that were right: no weight marked good changes, and no model gets worse."""

import pytest

from referee.reproductions import REPRODUCTIONS, Reproduction

pytestmark = pytest.mark.usefixtures("unchecked")  # shape checks make a rule ten times slower
RUNS = 3


@pytest.mark.parametrize("reproduction", REPRODUCTIONS, ids=lambda of: of.name)
def test_no_weight_that_is_right_or_marked_good_changes_and_no_model_gets_worse(reproduction: Reproduction) -> None:
    runs = [reproduction.play(seed) for seed in range(RUNS)]
    for seed, run in enumerate(runs):
        if reproduction.masked:
            assert (run.good_changed, run.right_made_wrong) == (0, 0), f"seed {seed}"
        assert run.right_made_wrong <= run.estimated, f"seed {seed}"
    gained = sum(run.after - run.before for run in runs) / RUNS
    assert gained > -0.5  # two or three of 500 images in one run, as chance may have it
    assert min(run.after for run in runs) > 0.9 * min(run.before for run in runs)

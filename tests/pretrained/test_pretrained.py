"""Pretrained rules: the prior, and those that come with the package."""

import pytest
import torch
from helpers import drawn, mask, same_bits
from populations import smooth

from planaria.errors import InvalidInput
from planaria.layouts import Sheet
from planaria.pretrained import Prior, shipped
from planaria.repairers import Record, RegrowPretrained
from planaria.streams import generator
from planaria_lab.pretrained import learned_prior
from planaria_lab.pretrained.unknown import prior_without
from planaria_lab.repairers import Kriging, SurvivorKriging, ZeroFill


@pytest.fixture(scope="module")
def prior() -> Prior:
    return learned_prior({"waves": smooth(8, 10, 8)})


def test_the_mean_is_that_of_the_gaussian(prior: Prior) -> None:
    grids, known = smooth(1, 12, 8, seed=5)[0], mask(12, 8, 8, share=0.6)
    found = prior.surveyed(grids, known)
    covariance, _ = prior._adapted(grids, known)
    flat, there = grids.flatten(1), known.flatten(1)
    noise = 1e-3 * covariance.diagonal().mean() * torch.eye(64)
    for values, seen, mean in zip(flat, there, found.mean.flatten(1), strict=True):
        among = (covariance + noise)[seen][:, seen].double()
        expected = covariance[~seen][:, seen].double() @ torch.linalg.solve(among, values[seen].double())
        torch.testing.assert_close(mean[~seen].double(), expected, rtol=1e-3, atol=1e-3)
        assert same_bits(mean[seen], values[seen])


def test_leaving_one_out_is_hiding_it(prior: Prior) -> None:
    grids, known = smooth(1, 12, 8, seed=6)[0], mask(12, 8, 8, share=0.7)
    predicted = prior.left_one_out(grids, known)
    covariance, _ = prior._adapted(grids, known)
    noise = 1e-3 * covariance.diagonal().mean() * torch.eye(64)
    seen = known[3].flatten()
    cell = int(seen.nonzero()[4])
    others = seen.clone()
    others[cell] = False
    among = (covariance + noise)[others][:, others].double()
    expected = covariance[cell, others].double() @ torch.linalg.solve(among, grids[3].flatten()[others].double())
    torch.testing.assert_close(predicted[3].flatten()[cell].double(), expected, rtol=1e-2, atol=1e-2)


def test_a_taught_kind_repairs_better_than_an_unknown_one(prior: Prior) -> None:
    grids, known = smooth(1, 30, 8, seed=7)[0], mask(30, 8, 8, share=0.2)

    def error(of: Prior) -> float:
        return float((of.surveyed(grids, known).mean - grids)[~known].square().mean())

    assert error(prior) < error(prior_without(prior, 0)) < float(grids[~known].square().mean())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_kinds_that_nobody_taught_are_repaired_as_kriging_from_survivors_does(prior: Prior, share: float) -> None:
    """Waves across, of which the prior knows none; 3 % for what is estimated on fewer cells."""
    phases = 6.28 * torch.rand(48, 1, 1, generator=generator(0, "phases"))
    grids = torch.cos(2.4 * torch.arange(8) + phases).expand(48, 8, 8) + 0.3 * drawn(48, 8, 8)
    known = mask(48, 8, 8, share=share)
    layout = Sheet((8, 8))

    def error(repaired: torch.Tensor) -> float:
        return float((repaired.view(48, 8, 8) - grids)[~known].square().mean())

    flat, there = grids.flatten(1), known.flatten(1)
    kriged = error(SurvivorKriging(layout).restore(flat, there, Record()))
    assert error(prior.surveyed(grids, known).mean) < 1.03 * kriged < error(torch.zeros(48, 64))


def test_what_survivors_tell_lies_between_0_and_1(prior: Prior) -> None:
    for share in (0.0, 0.5, 1.0):
        told = prior.surveyed(smooth(1, 3, 8)[0], mask(3, 8, 8, share=share)).told
        assert ((told >= 0) & (told <= 1)).all()


def test_grids_that_no_prior_is_for_are_refused(prior: Prior) -> None:
    for space in ((33, 32), (0, 4), (4,)):
        with pytest.raises(InvalidInput, match="1,024"):
            prior.covariances(space)
    with pytest.raises(InvalidInput, match="no prior"):
        Prior(torch.zeros(1, 2, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(InvalidInput, match="negative"):
        Prior(torch.zeros(1, 2, 4, 4), -torch.ones(1, 4, 4))


def test_the_shipped_rule_beats_what_stores_and_what_stores_nothing() -> None:
    """On network A, which it has never seen: kriging with its own covariance, and zeros."""
    from planaria_lab.bench import tinymlp

    weight = tinymlp.shipped("A").fc1.weight.detach()
    known = mask(*weight.shape, share=0.1, seed=4)
    layout = Sheet((28, 28))

    def error(repairer: RegrowPretrained | Kriging | ZeroFill) -> float:
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        return float((restored - weight)[~known].square().mean())

    pretrained = RegrowPretrained(shipped("sheet-1"), layout)
    assert error(pretrained) < 0.85 * error(Kriging(layout)) < error(ZeroFill())
    assert pretrained.prepare(weight).nbytes == 0


def test_rules_that_are_not_there_and_layouts_of_other_axes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="sheet-1"):
        shipped("sheet-0")
    with pytest.raises(InvalidInput, match="axes"):
        RegrowPretrained(shipped("sheet-1"), Sheet((4,)))

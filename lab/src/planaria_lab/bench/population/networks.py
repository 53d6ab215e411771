"""Whole networks: every weight and bias may be lost, and what repairs them has learned from others."""

import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from planaria_lab.bench.population.judge import Judge, cell
from planaria_lab.bench.population.masks import drawn_masks
from planaria_lab.bench.population.remembered import nearness
from planaria_lab.bench.population.settings import NetworkSettings, PopulationSettings
from planaria_lab.bench.population.zoos import SHARED, UNSEEN_SEEDS, Tell, TestSet, World, first
from planaria_lab.network_repairers import (
    Behaviour,
    ByLayer,
    CrossbarAutomaton,
    EquivariantNetwork,
    MaskedTransformer,
    MatchedPCA,
    NetworkRepairer,
    NeuronWiener,
    ZooMean,
)
from planaria_lab.zoo import Population

ROWS: dict[str, Callable[[Behaviour], NetworkRepairer]] = {
    "zero": lambda behaviour: ByLayer({}),
    "zoo mean": lambda behaviour: ZooMean(),
    "neuron Wiener": lambda behaviour: NeuronWiener(),
    "matched PCA": lambda behaviour: MatchedPCA(),
    "crossbar automaton": lambda behaviour: CrossbarAutomaton(),
    "crossbar automaton, behaviour": lambda behaviour: CrossbarAutomaton(behaviour=behaviour),
    "masked transformer": lambda behaviour: MaskedTransformer(),
    "masked transformer, behaviour": lambda behaviour: MaskedTransformer(behaviour=behaviour),
}
"""By name, each made new; what is handed over is how networks behave on training images."""
if find_spec("nfn"):
    ROWS["equivariant network"] = lambda behaviour: EquivariantNetwork()

ALL = "all"


def populations(settings: NetworkSettings, row: str) -> Iterator[str]:
    """What a row learns from: all that there is, what shares its initialisation (quick rows), or so many networks."""
    yield ALL
    if row not in settings.fewer:
        yield SHARED
    yield from map(str, settings.fewer.get(row, settings.sizes))


def measure(world: World, settings: PopulationSettings, row: str, learned_from: str, tell: Tell) -> dict[str, Any]:
    """One row after it has learned from one of `populations`, ready for JSON.

    Of all networks, all test sets and damages, and the memorisation test; of so many, the points of the curve alone.
    """
    told = settings.networks
    repairer = ROWS[row](Behaviour(world.architecture, world.inputs))
    trained = world.shared if learned_from == SHARED else world.trained
    tests = [test for test in world.tests.values() if (test.name == SHARED) == (learned_from == SHARED)]
    shares: Mapping[str, Any] = told.shares
    if learned_from not in (ALL, SHARED):
        trained = first(trained, int(learned_from))
        tests, shares = [world.tests[UNSEEN_SEEDS]], {"scattered": told.curve}
    began = time.perf_counter()
    repairer.learn(trained, seed=settings.seed, progress=lambda done, total, note: tell(f"learning {done} of {total}"))
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {
        "part": "networks",
        "row": row,
        "learned_from": learned_from,
        "networks": len(trained),
        "seconds": round(seconds, 2),
        "tests": {test.name: _measured(repairer, test, trained, shares, settings.seed, tell) for test in tests},
    }
    if learned_from == ALL:
        found["remembered"] = _remembered(repairer, world.tests[UNSEEN_SEEDS], trained, settings, tell)
    return found


def _measured(
    repairer: NetworkRepairer, test: TestSet, trained: Population, shares: Mapping[str, Any], seed: int, tell: Tell
) -> dict[str, Any]:
    learned = {name: tuple(tensor.shape[1:]) for name, tensor in trained.stack.items()}
    if (refusal := repairer.refusal(test.architecture.shapes, learned)) is not None:
        return {"refused": refusal}
    intact = test.networks.stack
    judge = Judge(test.architecture, intact, test.inputs.double(), test.labels)
    damages: dict[str, dict[str, Any]] = {}
    seconds, repairs = 0.0, 0
    for kind, some in shares.items():
        for share in some:
            tell(f"{test.name}: {kind}, {share:.0%}")
            known = drawn_masks(kind, share, test.architecture, test.networks.names, where=test.name, seed=seed)
            began = time.perf_counter()
            repaired = repairer.restore(_damaged(intact, known), known)
            seconds, repairs = seconds + time.perf_counter() - began, repairs + len(test.networks)
            measured = judge.measures(repaired, known)
            damages.setdefault(kind, {})[str(share)] = {
                name: cell(name, [values.tolist()]) for name, values in measured.items()
            }
    return {
        "intact": cell("accuracy", [judge.accuracy.tolist()]),
        "seconds_a_repair": round(seconds / repairs, 5),
        "damages": damages,
    }


def _remembered(
    repairer: NetworkRepairer, test: TestSet, trained: Population, settings: PopulationSettings, tell: Tell
) -> dict[str, Any]:
    """Distances and cosines of repaired networks, and of the intact ones, to the nearest that was learned from."""
    share, some = settings.networks.remembered_share, first(test.networks, settings.networks.remembered)
    known = drawn_masks("scattered", share, test.architecture, some.names, where=test.name, seed=settings.seed)
    repaired = repairer.restore(_damaged(some.stack, known), known)

    def told(done: int, total: int) -> None:
        tell(f"nearest network, {done} of {total}")

    found = nearness(repaired, some.stack, trained.stack, tell=told)
    reference = nearness(some.stack, some.stack, trained.stack, tell=told)
    copies = found["nearest_cosine"] > found["own_cosine"]
    measured = found | {f"intact_{name}": reference[name] for name in ("nearest_distance", "nearest_cosine")}
    return {name: cell(name, [values.tolist()]) for name, values in measured.items()} | {
        "nearer_to_another": round(100 * float(copies.double().mean()), 2)
    }


def _damaged(intact: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.where(known[name], tensor, torch.nan) for name, tensor in intact.items()}

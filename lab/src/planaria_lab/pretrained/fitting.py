"""Learning a rule on a population: for networks that nobody has seen yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call

from planaria import streams
from planaria.automaton import Automaton, Recipe
from planaria.automaton.normalisation import survivors_scale
from planaria.errors import InvalidInput
from planaria.fit import missing_error, output_error
from planaria.fit.descent import descent
from planaria.pretrained import RECIPE, PretrainedRule, Prior
from planaria.pretrained.prior import TOLD, Surveyed
from planaria_lab.pretrained.rule_file import LARGEST, sizes
from planaria_lab.pretrained.unknown import prior_without

MODES = 128  # fields of a kind: more explain nothing that survivors would not tell
SMOOTHEST = 1 / 3  # of a kind's networks, which its covariance is measured on: the others are more noise
HELD_OUT = 0.2  # of a kind's networks, which judge the rule
LEAST_NETWORKS = 4  # of a kind
Grids = Float[Tensor, "batch height width"]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class PopulationSchedule:
    """The settings of a population fit.

    Attributes:
        surveys: damaged tensors that are drawn and surveyed once, and trained on again and again.
        grids: of each of them, at most.
        iterations: parameter updates.
        tensors, batch: tensors an update, and grids of each.
        learning_rate: peak of Adam's rate; it rises over the first tenth and falls to 0 (one-cycle, Smith 2018).
        unseen: share of the surveys that are made as if the tensor's own kind had not been in the population, so that
            the rule learns to serve where the prior does not.
        output_share: of the layer-output error in the loss, for kinds with second moments of their inputs.
        held_out: damaged tensors that judge the rule, half of them with an unseen kind.
    """

    surveys: int = 200
    grids: int = 24
    iterations: int = 2000
    tensors: int = 4
    batch: int = 4
    learning_rate: float = 6e-3
    unseen: float = 0.5
    output_share: float = 0.3
    held_out: int = 24

    def __post_init__(self) -> None:
        for name in ("surveys", "grids", "iterations", "tensors", "batch", "held_out"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is at least 1, not {getattr(self, name)}.")
        if not (0 <= self.unseen <= 1 and 0 <= self.output_share <= 1 and self.learning_rate > 0):
            raise InvalidInput("unseen and output_share lie in [0, 1], and learning_rate is above 0.")


@dataclass(frozen=True)
class _Damaged:
    """A surveyed tensor, in units of its survivors."""

    intact: Grids
    known: Bool[Tensor, "batch height width"]
    surveyed: Surveyed
    kind: int
    scale: float  # mean squared error of the prior's answer
    unseen: bool  # whether the prior did not know its kind


def fit_population(
    kinds: Mapping[str, Sequence[Grids]],
    *,
    name: str,
    moments: Mapping[str, Float[Tensor, "inputs inputs"]] | None = None,
    recipe: Recipe = RECIPE,
    schedule: PopulationSchedule | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total, note: None,
) -> PretrainedRule:
    """Learns a prior and a rule from the grids of many networks, a kind for each data set that they were trained on.

    The prior's kinds are the covariances of their smoothest networks. The automaton starts at the prior's answer and is
    trained on all of them as in `fit_rule`, each tensor's error in units of the prior's; half of the tensors are
    surveyed as if their kind were unknown. A rule that is worse than the prior alone on held-out networks, of kinds
    that the prior knows or of others, is not kept: then the automaton answers with the prior.

    Cost: a survey takes a second for grids of 28 x 28, an iteration 16 grids through 16 steps: two minutes on one core
    by default. Memory: the surveys, some 100 MB.

    Args:
        kinds: by name, for each network its grids; of one size, finite.
        name: of the rule, with a version, as "sheet-1".
        moments: by kind, second moments of the inputs of its networks.
        recipe: of the automaton: `pretrained.RECIPE`, or that with more channels, hidden units or steps.
        seed: of everything that is drawn.
        progress: called with (done, total, what).

    Raises:
        InvalidInput: on no kind, fewer than four networks of one, grids of several sizes or above 1,024 cells, or
            moments that do not fit, or another recipe.
    """
    schedule = PopulationSchedule() if schedule is None else schedule
    _require_sound(kinds, moments or {})
    if replace(recipe, **sizes(RECIPE)) != RECIPE:
        raise InvalidInput(
            f"A pretrained rule is of planaria.pretrained.RECIPE but for {', '.join(LARGEST)}, not {recipe}."
        )
    train, judges = {}, {}
    for kind, networks in kinds.items():
        held_out = max(1, int(HELD_OUT * len(networks)))
        train[kind], judges[kind] = networks[:-held_out], networks[-held_out:]
    total = schedule.surveys + schedule.held_out + schedule.iterations
    prior = learned_prior(train)

    def surveys(of: Mapping[str, Sequence[Grids]], count: int, done: int, what: str) -> list[_Damaged]:
        drawn = streams.generator(seed, f"population {what}")
        found = []
        for at in range(count):
            progress(done + at, total, what)
            found.append(_surveyed(of, at, prior, schedule, drawn))
        return found

    pool = surveys(train, schedule.surveys, 0, "surveys")
    judge = surveys(judges, schedule.held_out, schedule.surveys, "held-out surveys")
    metrics = [None if moments is None else moments.get(kind) for kind in kinds]

    def told(iteration: int, loss: float) -> None:
        progress(len(pool) + len(judge) + iteration, total, f"training, loss {loss:.3f}")

    automaton, shift = _trained(recipe, pool, metrics, schedule, seed, told)
    errors = _judged(automaton, shift, judge)
    kept = all(error < 1 for error in errors.values())
    if not kept:
        _give_up(automaton)
    card = {
        "trained on": "; ".join(f"{len(of)} networks of {kind}" for kind, of in train.items()),
        "grids": f"{tuple(next(iter(kinds.values()))[0].shape[1:])}",
        "automaton": f"{'kept' if kept else 'answers with the prior'}: error on held-out networks, of the prior's: "
        + ", ".join(f"{error:.3f} for {what}" for what, error in errors.items()),
        "seed": str(seed),
    }
    return PretrainedRule(name, prior, automaton, shift, card)


def _trained(
    recipe: Recipe,
    pool: Sequence[_Damaged],
    metrics: Sequence[Tensor | None],
    schedule: PopulationSchedule,
    seed: int,
    told: Callable[[int, float], None],
) -> tuple[Automaton, Float[Tensor, "hidden told"]]:
    """An automaton and what shifts it, trained on surveyed tensors; `metrics` are second moments by kind."""
    automaton = Automaton(recipe, seed=seed)
    shift = torch.zeros(recipe.hidden, TOLD, requires_grad=True)
    descend = descent([*automaton.parameters(), shift], rate=schedule.learning_rate, iterations=schedule.iterations)
    order = streams.generator(seed, "population order")
    for iteration in range(schedule.iterations):
        losses = []
        for at in torch.randint(len(pool), (schedule.tensors,), generator=order).tolist():
            one = pool[at]
            rows = torch.randperm(len(one.intact), generator=order)[: schedule.batch]
            losses.append(_loss(automaton, shift, one, rows, metrics[one.kind], schedule.output_share))
        descend(torch.stack(losses).clamp_max(4.0).mean())
        told(iteration + 1, float(losses[-1].detach()))
    return automaton, shift.detach()


@torch.no_grad()
def _give_up(automaton: Automaton) -> None:
    """Makes the rule answer 0, so that a repair is the prior's answer, which the automaton starts at."""
    automaton.rule.delta_weight.zero_()
    automaton.rule.delta_bias.zero_()


@torch.no_grad()
def _judged(automaton: Automaton, shift: Tensor, judge: Sequence[_Damaged]) -> dict[str, float]:
    """Mean errors on held-out tensors, in units of the prior's, where it knows their kind and where not."""
    everything = slice(None)
    errors: dict[str, list[float]] = {}
    for one in judge:
        what = "kinds it does not" if one.unseen else "kinds it knows"
        errors.setdefault(what, []).append(float(_loss(automaton, shift, one, everything, None, 0.0)))
    return {what: sum(of) / len(of) for what, of in sorted(errors.items(), reverse=True)}


def learned_prior(kinds: Mapping[str, Sequence[Grids]]) -> Prior:
    """The covariance of each kind, measured on its smoothest networks, each in units of its own deviation."""
    fields, remainders = [], []
    for networks in kinds.values():
        ranked = sorted(networks, key=_smoothness, reverse=True)
        some = ranked[: max(1, round(SMOOTHEST * len(ranked)))]
        space = some[0].shape[1:]
        rows = torch.cat([(grids / grids.square().mean().sqrt()).flatten(1) / len(grids) ** 0.5 for grids in some])
        covariance = rows.T.double() @ rows.double() / len(some)
        variances, directions = torch.linalg.eigh(covariance)
        modes = (directions * variances.clamp_min(0).sqrt()).flip(1)[:, :MODES].T
        left = (covariance.diagonal() - modes.square().sum(0)).clamp_min(0)
        padded = torch.zeros(MODES, covariance.shape[0])  # small grids have fewer
        padded[: len(modes)] = modes.float()
        fields.append(padded.view(MODES, *space))
        remainders.append(left.float().view(space))
    return Prior(torch.stack(fields), torch.stack(remainders))


def _smoothness(grids: Grids) -> float:
    """Correlation of neighbours."""
    centred = grids - grids.mean()
    across = (centred[:, :, 1:] * centred[:, :, :-1]).mean() + (centred[:, 1:] * centred[:, :-1]).mean()
    return float(across / centred.square().mean().clamp_min(1e-30))


def _surveyed(
    kinds: Mapping[str, Sequence[Grids]],
    number: int,
    prior: Prior,
    schedule: PopulationSchedule,
    generator: torch.Generator,
) -> _Damaged:
    """A network of the kinds in turn, damaged at a random rate (heavy damage more often), surveyed."""
    kind = number % len(kinds)
    networks = list(kinds.values())[kind]
    intact = networks[int(torch.randint(len(networks), (), generator=generator))]
    intact = intact[torch.randperm(len(intact), generator=generator)[: schedule.grids]]
    rate = 0.05 + 0.9 * float(torch.rand((), generator=generator)) ** 0.5
    known = torch.rand(intact.shape, generator=generator) >= rate
    known.view(-1)[:2] = True  # enough for a scale
    mean, scale = survivors_scale(intact, known)
    intact = (intact - mean) / scale
    unseen = float(torch.rand((), generator=generator)) < schedule.unseen
    surveyed = (prior_without(prior, kind) if unseen else prior).surveyed(intact, known)
    error = (surveyed.mean - intact)[~known].square().mean()
    return _Damaged(intact, known, surveyed, kind, float(error), unseen)


def _loss(
    automaton: Automaton,
    shift: Float[Tensor, "hidden told"],
    one: _Damaged,
    rows: Tensor | slice,
    moments: Float[Tensor, "inputs inputs"] | None,
    output_share: float,
) -> Float[Tensor, ""]:
    """Error of some grids in units of the prior's."""
    mean, known = one.surveyed.mean[rows], one.known[rows]
    state = automaton.start(mean, known, mean)
    biases = {"rule.hidden_bias": automaton.rule.hidden_bias + shift @ one.surveyed.told}
    error = functional_call(automaton, biases, (state,))[:, 0] - one.intact[rows]
    loss = missing_error(error, known)
    if moments is not None and output_share:
        loss = (1 - output_share) * loss + output_share * output_error(error, known, moments)
    return loss / one.scale


def _require_sound(kinds: Mapping[str, Sequence[Grids]], moments: Mapping[str, Tensor]) -> None:
    if not kinds:
        raise InvalidInput("A population has at least one kind of networks; none came. Name a zoo.")
    space = next((grids.shape[1:] for networks in kinds.values() for grids in networks), torch.Size())
    for kind, networks in kinds.items():
        if len(networks) < LEAST_NETWORKS:
            raise InvalidInput(
                f"A kind takes {LEAST_NETWORKS} networks or more; {kind!r} has {len(networks)}. Take a larger zoo."
            )
        for grids in networks:
            if grids.dim() != 3 or grids.shape[1:] != space or not grids.isfinite().all():
                raise InvalidInput(
                    f"Grids of a population are finite and all of one size {tuple(space)}; {kind!r} has "
                    f"{tuple(grids.shape)}."
                )
    for kind, moment in moments.items():
        if kind not in kinds or tuple(moment.shape) != (space.numel(), space.numel()):
            raise InvalidInput(f"Second moments are of the kinds {sorted(kinds)} and of {space.numel()} inputs.")

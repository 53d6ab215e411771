"""The neural cellular automaton: perceive, update, fire, clamp, and again."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from planaria import streams
from planaria.automaton import fused
from planaria.automaton.firing import firing_cells
from planaria.automaton.perception import Perception, unchanged_filters
from planaria.automaton.recipes import Recipe
from planaria.automaton.rule import Rule
from planaria.automaton.survey import CHANNELS as SURVEYED
from planaria.automaton.survey import Survey
from planaria.errors import InvalidInput

Implementation = Literal["auto", "plain", "fused"]

WEIGHT, KNOWN, HINT = 0, 1, 2
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")  # of a module


class Automaton(nn.Module):
    """A grid of cells that all follow one learned rule.

    The state has shape `(batch, channels, *space)`, float32: channel 0 the weight, channel 1 known (1 or 0), then fixed
    channels (the hint and the survey, if the recipe has them), then hidden channels. Known cells keep their weight, and
    all cells their fixed channels, bit for bit, whatever the rule says.

    Source: Mordvintsev et al. 2020 ("Growing Neural Cellular Automata"); on weights: Paladini, Tuba, Mariot, ACANCOS
    2026. Differences of the default recipe from the talk are listed in `docs/automaton.md`.

    Args:
        recipe: the automaton's shape.
        dimensions: spatial dimensions of the grids, 1 to 3.
        seed: of the rule's first layer, and of the firing of cells.

    Raises:
        InvalidInput: if the recipe has no room for a hidden channel, or `dimensions` is not 1, 2 or 3.
    """

    def __init__(self, recipe: Recipe, *, dimensions: int = 2, seed: int = 0):
        super().__init__()
        self.recipe = recipe
        self.seed = seed
        self.perception = Perception(dimensions, laplacian=recipe.laplacian)
        self.survey = Survey(dimensions, modes=recipe.modes, frequencies=recipe.frequencies) if recipe.modes else None
        self.fixed = 1 + recipe.hints + (SURVEYED if self.survey else 0)
        if recipe.channels < 2 + self.fixed:
            raise InvalidInput(
                f"Recipe {recipe.name!r} has {recipe.channels} channels; in {dimensions}-D it needs at least "
                f"{2 + self.fixed} (the weight, {self.fixed} fixed and a hidden one)."
            )
        self.rule = Rule(
            len(self.perception.filters) * recipe.channels,
            hidden=recipe.hidden,
            outputs=recipe.channels - (0 if recipe.outputs_fixed else self.fixed),
            generator=streams.generator(seed, "rule"),
        )

    @property
    def dimensions(self) -> int:
        return self.perception.dimensions

    @property
    def parameter_count(self) -> int:
        """Numbers that were learned: the rule's and the survey's."""
        return sum(value.numel() for value in self.state_dict().values())

    def start(
        self,
        weight: Float[Tensor, "batch *space"],
        known: Bool[Tensor, "batch *space"],
        hint: Float[Tensor, "batch *space"] | None = None,
    ) -> Float[Tensor, "batch channels *space"]:
        """The first state: hidden channels at 0, missing weights at what is expected of them.

        That is 0, the hint, or the survey's posterior mean. If there is a hint or a survey, the last fixed channel is
        this expectation.

        What a missing cell holds is never looked at. The survey averages over the whole batch, so grids of one tensor
        belong into one call.

        Args:
            weight: grids in the automaton's units, see `Normalisation`.
            known: where `weight` is trusted.
            hint: what to start from, finite, in the same units, if the recipe has a channel for it.

        Raises:
            InvalidInput: if shapes differ or are not those of the automaton's grids, or if there is a hint and no
                channel for it, or a channel and no hint.
        """
        if weight.shape != known.shape:
            raise InvalidInput(
                f"weight has shape {tuple(weight.shape)} and known {tuple(known.shape)}; make them equal."
            )
        if weight.dim() != 1 + self.dimensions:
            raise InvalidInput(
                f"The grids of this automaton have a batch and {self.dimensions} spatial axes; weight has shape "
                f"{tuple(weight.shape)}."
            )
        if (hint is not None) != (self.recipe.hints > 0):
            given = "no hint was given" if hint is None else "a hint was given"
            raise InvalidInput(f"Recipe {self.recipe.name!r} has {self.recipe.hints} hint channels, and {given}.")
        if hint is not None and hint.shape != weight.shape:
            raise InvalidInput(
                f"weight has shape {tuple(weight.shape)} and its hint {tuple(hint.shape)}; make them equal."
            )
        state = torch.zeros(weight.shape[0], self.recipe.channels, *weight.shape[1:], device=weight.device)
        state[:, WEIGHT] = torch.where(known, weight, 0.0 if hint is None else hint)
        state[:, KNOWN] = known
        if hint is not None:
            state[:, HINT] = hint
        if self.survey:
            surveyed = self.survey(state[:, WEIGHT], known)
            state[:, 1 + self.fixed - SURVEYED : 1 + self.fixed] = surveyed
            state[:, WEIGHT] = torch.where(known, weight, surveyed[:, -1])
        return state

    def step(self, state: Float[Tensor, "batch channels *space"], *, index: int = 0, seed: int | None = None) -> Tensor:
        """One step, the `index`-th since the start, in plain PyTorch. Returns a new state."""
        delta = self.rule(self.perception(state)) * self.recipe.cooling**index
        acting = self._acting(state, index, seed)
        if acting is not None:
            delta = delta * acting.unsqueeze(1)
        if self.recipe.outputs_fixed:
            delta = torch.cat([delta[:, :1], delta[:, 1 + self.fixed :]], dim=1)
        known = state[:, KNOWN : KNOWN + 1] != 0
        weight = torch.where(known, state[:, :1], state[:, :1] + delta[:, :1])
        fixed = state[:, KNOWN : KNOWN + self.fixed]
        hidden = state[:, 1 + self.fixed :] + delta[:, 1:]
        return torch.cat([weight, fixed, hidden], dim=1)

    def run(
        self,
        state: Float[Tensor, "batch channels *space"],
        *,
        steps: int | None = None,
        seed: int | None = None,
        checkpoint: bool = False,
        implementation: Implementation = "auto",
    ) -> Float[Tensor, "batch channels *space"]:
        """The state after `steps` steps (the recipe's number by default).

        Args:
            state: from `start`, or an earlier run's result.
            steps: at least 1.
            seed: of the firing; the automaton's own by default.
            checkpoint: keep only every sqrt(steps)-th state for the backward pass and compute the others again:
                less memory for a third more time, same gradients.
            implementation: "plain" PyTorch, "fused" kernels (CPU, float32, 2-D, with perception and rule as planaria
                makes them), or "auto": fused where it can be.

        Raises:
            InvalidInput: on a state, its type included, a step count or an implementation that does not fit.
        """
        steps = self._check(state, steps)
        if implementation not in ("auto", "plain", "fused"):
            raise InvalidInput(f'implementation is "auto", "plain" or "fused", not {implementation!r}.')
        if implementation == "fused" and not fused.supports(state):
            raise InvalidInput(
                f"Fused kernels run on CPU float32 grids of 2 dimensions, not {state.device.type} {state.dtype} of "
                f'shape {tuple(state.shape)}. Use implementation="auto".'
            )
        changed = self._changed() if implementation != "plain" else None
        if implementation == "fused" and changed:
            raise InvalidInput(
                f"Fused kernels hold steps, filters and layers of their own, and {changed}, which they would ignore. "
                'Use implementation="auto".'
            )
        segment = max(1, round(steps**0.5)) if checkpoint else 1
        if implementation != "plain" and not changed and fused.supports(state):
            return self._run_fused(state, steps, seed, segment)

        def advance(state: Tensor, begin: int, end: int) -> Tensor:
            for index in range(begin, end):
                state = self.step(state, index=index, seed=seed)
            return state

        if not checkpoint:
            return advance(state, 0, steps)
        for begin in range(0, steps, segment):
            end = min(begin + segment, steps)
            state = recompute(advance, state, begin, end, use_reentrant=False, preserve_rng_state=False)
        return state

    def forward(self, state: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """`run` with its defaults, for what calls modules."""
        return self.run(state)

    def _changed(self) -> str | None:
        """What of this automaton is not what the fused kernels compute, in words; None if all of it is."""
        if type(self).step is not Automaton.step or "step" in vars(self):
            return "this automaton's step is another one"
        for name, part, kind in (("perception", self.perception, Perception), ("rule", self.rule, Rule)):
            if type(part) is not kind or "forward" in vars(part):  # parametrised modules have a class of their own, too
                return f"the {name} is a {type(part).__name__} of another forward"
            if any(getattr(part, hooks) for hooks in HOOKS):
                return f"the {name} has hooks"
        filters = self.perception.filters
        if filters.requires_grad:
            return "the filters are to be learned"
        own = unchanged_filters(2, laplacian=self.recipe.laplacian)
        if filters.device != own.device or not torch.equal(filters.to(own), own):
            return "the filters were changed"
        return None

    def _run_fused(self, state: Tensor, steps: int, seed: int | None, segment: int) -> Tensor:
        weight: Tensor = self.rule.delta_weight
        bias: Tensor = self.rule.delta_bias
        if not self.recipe.outputs_fixed:  # the kernels take a row for every channel and skip the fixed ones
            weight = torch.cat([weight[:1], weight.new_zeros(self.fixed, weight.shape[1]), weight[1:]])
            bias = torch.cat([bias[:1], bias.new_zeros(self.fixed), bias[1:]])
        return fused.run(
            state,
            hidden_weight=self.rule.hidden_weight,
            hidden_bias=self.rule.hidden_bias,
            delta_weight=weight,
            delta_bias=bias,
            fixed=self.fixed,
            laplacian=self.recipe.laplacian,
            gains=[self.recipe.cooling**index for index in range(steps)],
            fire=lambda index: self._acting(state, index, seed),
            checkpoint_every=segment,
        )

    def _acting(self, state: Tensor, index: int, seed: int | None) -> Bool[Tensor, "batch *space"] | None:
        """The cells that act at step `index`; None for all of them."""
        acting = None
        if self.recipe.fire_rate < 1:
            acting = firing_cells(
                (state.shape[0], *state.shape[2:]),
                rate=self.recipe.fire_rate,
                seed=self.seed if seed is None else seed,
                step=index,
                device=state.device,
            )
        if self.recipe.known_cells_rest:
            missing = state[:, KNOWN] == 0
            acting = missing if acting is None else acting & missing
        return acting

    def _check(self, state: Tensor, steps: int | None) -> int:
        steps = self.recipe.steps if steps is None else steps
        if steps < 1:
            raise InvalidInput(f"steps is at least 1, not {steps}.")
        if state.dim() != 2 + self.dimensions or state.shape[1] != self.recipe.channels:
            raise InvalidInput(
                f"A state of this automaton has shape (batch, {self.recipe.channels}, "
                f"{self.dimensions} spatial axes), not {tuple(state.shape)}. Make it with start()."
            )
        for parameter in self.rule.parameters():
            if parameter.dtype != state.dtype:
                raise InvalidInput(
                    f"The state is {state.dtype} and the rule {parameter.dtype}; convert one of them to the other."
                )
        return steps

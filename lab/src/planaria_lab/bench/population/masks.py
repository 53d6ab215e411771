"""Which weights of whole networks are lost: scattered, whole neurons, or a range of each tensor."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from planaria import streams
from planaria.damages import Erasure
from planaria.errors import InvalidInput
from planaria_lab.zoo import MLP

Mask = dict[str, Bool[Tensor, "..."]]


def drawn_masks(
    kind: str, share: float, architecture: MLP, networks: Sequence[str], *, where: str, seed: int
) -> Mapping[str, Bool[Tensor, "networks ..."]]:
    """What is known of each network, by tensor. They depend on nothing else, so that every method faces the same.

    Args:
        kind: "scattered", "neurons" (incoming weights, bias and outgoing weights of hidden neurons), or "block" (a
            range of each flattened tensor).
        share: of the weights, or of the neurons of each hidden layer, in (0, 1]; rounded.
        where: name of the test set.

    Raises:
        InvalidInput: on an unknown kind.
    """
    if kind not in KINDS:
        raise InvalidInput(f"Damages are {', '.join(KINDS)}, not {kind!r}.")
    each = [
        KINDS[kind](architecture, share, streams.generator(seed, f"{where}, network {name}, {kind} {share}"))
        for name in networks
    ]
    return {name: torch.stack([one[name] for one in each]) for name in architecture.shapes}


def _scattered(architecture: MLP, share: float, draws: torch.Generator) -> Mask:
    intact = {name: torch.zeros(shape) for name, shape in architecture.shapes.items()}
    return dict(Erasure(share).apply_to_model(intact, draws).known)


def _neurons(architecture: MLP, share: float, draws: torch.Generator) -> Mask:
    known = {name: torch.ones(shape, dtype=torch.bool) for name, shape in architecture.shapes.items()}
    for layer, width in enumerate(architecture.widths, start=1):
        lost = torch.randperm(width, generator=draws)[: round(share * width)]
        known[f"fc{layer}.weight"][lost] = False
        known[f"fc{layer}.bias"][lost] = False
        known[f"fc{layer + 1}.weight"][:, lost] = False
    return known


def _block(architecture: MLP, share: float, draws: torch.Generator) -> Mask:
    known = {name: torch.ones(shape, dtype=torch.bool) for name, shape in architecture.shapes.items()}
    for mask in known.values():
        count = round(share * mask.numel())
        begin = int(torch.randint(mask.numel() - count + 1, (), generator=draws))
        mask.view(-1)[begin : begin + count] = False
    return known


KINDS: Mapping[str, Callable[[MLP, float, torch.Generator], Mask]] = {
    "scattered": _scattered,
    "neurons": _neurons,
    "block": _block,
}

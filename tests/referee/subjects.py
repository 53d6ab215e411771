"""The models that the referee draws: of all kinds and types, tiny and odd ones among them, up to some 60 kB."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planaria.streams import generator
from planaria_lab.bench import tinymlp
from planaria_lab.datasets import digits
from referee.source import Source

Tensors = dict[str, Tensor]
DTYPES = {
    torch.float32: 0.62,
    torch.bfloat16: 0.12,
    torch.float16: 0.12,
    torch.float64: 0.06,
    torch.float8_e4m3fn: 0.04,
    torch.float8_e5m2: 0.04,
}
STRUCTURES = {
    "gaussian": 0.4,
    "low rank": 0.15,
    "smooth": 0.12,
    "pruned": 0.1,
    "heavy-tailed": 0.1,
    "one outlier": 0.08,
    "constant": 0.05,
}


def draw_model(source: Source) -> tuple[str, Tensors]:
    """A kind of model and its tensors."""
    kind = source.weighted({name: share for name, (share, _) in KINDS.items()})
    dtype = source.weighted(DTYPES)
    least = 0 if kind == "tiny" or source.chance(0.1) else source.size(4000, 16000)
    tensors = KINDS[kind][1](source)
    # A guard has a smallest size: most models are so large that more fits into it.
    while kind not in ("trained", "images") and sum(map(torch.Tensor.numel, tensors.values())) < least:
        tensors = KINDS[kind][1](source)
    if kind not in ("integers", "tiny"):
        tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        kind = f"{kind}, {str(dtype).removeprefix('torch.')}"
    if source.chance(0.15):
        tensors |= _odd(source)
    return kind, {name: tensor.contiguous() for name, tensor in tensors.items()}


def matrix(source: Source, *shape: int) -> Tensor:
    """Weights of one layer, of the scale that such a layer has. The first axis is that of its outputs."""
    outputs, inputs = shape[0], max(torch.Size(shape[1:]).numel(), 1)
    scale = source.between(0.5, 1.5) * inputs**-0.5
    structure = source.weighted(STRUCTURES)
    weight = source.normal(outputs, inputs)
    if structure == "low rank":
        rank = source.whole(1, max(1, min(outputs, inputs) // 4))
        weight = source.normal(outputs, rank) @ source.normal(rank, inputs) / rank**0.5
        weight = weight + source.magnitude(0.01, 0.5) * source.normal(outputs, inputs)
    elif structure == "smooth":
        padded = F.pad(weight[None, None], (3, 3, 3, 3), mode="replicate")
        weight = F.avg_pool2d(F.avg_pool2d(padded, 3, 1), 5, 1)[0, 0]
        weight = weight / weight.std().clamp_min(1e-6) if weight.numel() > 1 else weight
    elif structure == "pruned":
        weight = weight * (weight.abs() > 1.645)  # 90 % zeros
    elif structure == "heavy-tailed":
        weight = weight / source.normal(outputs, inputs).abs().clamp_min(0.05)
    elif structure == "one outlier":
        weight.view(-1)[source.whole(0, weight.numel() - 1)] = source.between(50, 200)
    elif structure == "constant":
        weight = torch.full_like(weight, source.between(-2, 2))
    return (scale * weight).view(shape)


def vector(source: Source, size: int) -> Tensor:
    return source.magnitude(0.01, 0.2) * source.normal(size)


def _dense(source: Source) -> Tensors:
    widths = [source.size(4, 180) for _ in range(source.whole(2, 4))]
    tensors = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        tensors[f"layers.{layer}.weight"] = matrix(source, outputs, inputs)
        tensors[f"layers.{layer}.bias"] = vector(source, outputs)
    return tensors


def _convolutions(axes: int) -> Callable[[Source], Tensors]:
    def made(source: Source) -> Tensors:
        channels = [source.whole(1, 3), *(source.size(4, (100, 50, 24)[axes - 1]) for _ in range(source.whole(1, 3)))]
        tensors = {}
        for layer, (inputs, outputs) in enumerate(pairwise(channels)):
            kernel = [source.pick((1, 3, 3, 5)) if axes < 3 else source.pick((1, 2, 3)) for _ in range(axes)]
            tensors[f"conv{layer}.weight"] = matrix(source, outputs, inputs, *kernel)
            tensors[f"conv{layer}.bias"] = vector(source, outputs)
            if source.chance(0.5):
                tensors |= _batch_norm(source, f"norm{layer}", outputs)
        return tensors | {"head.weight": matrix(source, 10, channels[-1])}

    return made


def _batch_norm(source: Source, name: str, size: int) -> Tensors:
    return {
        f"{name}.weight": 1 + 0.1 * source.normal(size),
        f"{name}.bias": 0.1 * source.normal(size),
        f"{name}.running_mean": source.normal(size),
        f"{name}.running_var": (0.5 * source.normal(size)).exp(),
        f"{name}.num_batches_tracked": torch.tensor(source.whole(0, 10**5)),
    }


def _attention(source: Source) -> Tensors:
    width, length = 4 * source.whole(2, 16), source.whole(4, 60)
    tensors = {"embedding.weight": matrix(source, source.size(10, 120), width)}
    if source.chance(0.6):  # what a padding index leaves, and what some write there
        tensors["embedding.weight"][0] = source.pick((torch.nan, 0.0, -torch.inf))
    for block in range(source.whole(1, 2)):
        for name in ("q", "k", "v", "out"):
            tensors[f"blocks.{block}.{name}.weight"] = matrix(source, width, width)
        tensors[f"blocks.{block}.norm.weight"] = 1 + 0.05 * source.normal(width)
        tensors[f"blocks.{block}.norm.bias"] = 0.05 * source.normal(width)
        if source.chance(0.6):
            causal = torch.full((length, length), -torch.inf).triu(1)
            tensors[f"blocks.{block}.mask"] = causal if source.chance(0.7) else causal.isinf()
    return tensors


def _lstm(source: Source) -> Tensors:
    inputs, hidden = source.whole(3, 48), source.whole(4, 48)
    tensors = {"lstm.weight_ih_l0": matrix(source, 4 * hidden, inputs)}
    tensors["lstm.weight_hh_l0"] = matrix(source, 4 * hidden, hidden)
    for name in ("lstm.bias_ih_l0", "lstm.bias_hh_l0"):
        tensors[name] = source.between(-1, 1) * hidden**-0.5 + vector(source, 4 * hidden)
    return tensors | {"head.weight": matrix(source, 5, hidden)}


def _embedding(source: Source) -> Tensors:
    width = source.whole(8, 48)
    table = matrix(source, source.size(20, 500), width)
    if source.chance(0.5):
        table[source.whole(0, 3)] = torch.nan
    if source.chance(0.3):  # rows that were never trained
        table[-source.whole(1, 8) :] = 0
    norm = 1 + 0.02 * source.normal(width)
    return {"table.weight": table, "norm.weight": norm, "head.weight": matrix(source, 7, width)}


def _integers(source: Source) -> Tensors:
    """Codes of 8 bits with scales, as quantisers leave them."""
    tensors = {}
    for layer in range(source.whole(1, 3)):
        outputs, inputs = source.size(4, 160), source.size(4, 180)
        weight = matrix(source, outputs, inputs)
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-6) / 127
        tensors[f"layers.{layer}.weight"] = (weight / scale).round().to(torch.int8)
        tensors[f"layers.{layer}.scale"] = scale[:, 0].to(source.pick((torch.float32, torch.float16)))
        if source.chance(0.5):
            tensors[f"layers.{layer}.zero_point"] = torch.zeros(outputs, dtype=torch.int32)
        tensors[f"layers.{layer}.bias"] = vector(source, outputs)
    return tensors


def _tiny(source: Source) -> Tensors:
    """A handful of small tensors of any type."""
    tensors = {"weight": matrix(source, source.whole(1, 12), source.whole(1, 12))}
    return tensors | _odd(source) | {"again": vector(source, source.whole(1, 30))}


def _odd(source: Source) -> Tensors:
    """Scalars, empty tensors, single numbers, odd counts of bytes."""
    every = {
        "odd.scalar": torch.tensor(source.between(-3, 3)),
        "odd.empty": torch.zeros(0, source.whole(0, 4)),
        "odd.one": source.normal(1, 1).to(source.pick((torch.float64, torch.bfloat16))),
        "odd.bytes": (30 * source.normal(source.pick((1, 3, 77, 1001)))).to(torch.int8),
        "odd.flags": source.mask((source.pick((1, 5, 131)),), 0.5),
        "odd.steps": torch.tensor(source.whole(0, 10**6)),
        "odd.small_floats": source.normal(source.pick((3, 7, 129))).to(torch.float8_e4m3fn),
        "odd.zeros": torch.zeros(source.whole(1, 40), 3),
        "odd.line": source.normal(1, source.whole(1, 300)),
    }
    return {name: tensor for name, tensor in every.items() if source.chance(0.4)}


def _images(source: Source) -> Tensors:
    """Some neurons of a network that comes along, which looks at images: there are ready rules for these."""
    network = tinymlp.shipped(source.pick(("A", "B")))
    neurons = torch.randperm(network.fc1.out_features, generator=source.generator)[: source.whole(6, 20)]
    return {
        "fc1.weight": network.fc1.weight.detach()[neurons],
        "fc1.bias": network.fc1.bias.detach()[neurons],
        "fc2.weight": network.fc2.weight.detach()[:, neurons],
        "fc2.bias": network.fc2.bias.detach().clone(),
    }


def _trained(source: Source) -> Tensors:
    trained = trained_on_digits(source.whole(0, 3))
    return {name: tensor.clone() for name, tensor in trained.items()}


@cache
def trained_on_digits(seed: int) -> Tensors:
    """A small convolutional network, trained for a second."""
    data = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initialiser of torch's layers takes no generator
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
    inputs, labels = data.train_images.float()[:, None] / 8 - 1, data.train_labels
    adam = torch.optim.Adam(network.parameters(), lr=5e-3)
    order = generator(seed, "referee batches")
    for _ in range(6):
        for batch in torch.randperm(len(inputs), generator=order).split(64):
            adam.zero_grad()
            F.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            adam.step()
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


KINDS: dict[str, tuple[float, Callable[[Source], Tensors]]] = {
    "dense": (0.22, _dense),
    "1-D convolutions": (0.06, _convolutions(1)),
    "2-D convolutions": (0.16, _convolutions(2)),
    "3-D convolutions": (0.05, _convolutions(3)),
    "attention": (0.13, _attention),
    "LSTM": (0.07, _lstm),
    "embedding": (0.07, _embedding),
    "integers": (0.08, _integers),
    "tiny": (0.04, _tiny),
    "images": (0.06, _images),
    "trained": (0.06, _trained),
}

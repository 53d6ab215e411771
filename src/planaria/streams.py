"""Named, independent random streams.

Two streams of one seed never share numbers. Without this, a mask drawn from the seed that also initialised the network
repeats the initialiser's numbers and so selects weights by their initial value, which flatters every repair.
"""

import hashlib

import torch


def generator(seed: int, name: str) -> torch.Generator:
    """A generator that depends on `seed` and `name` alone, on the CPU, for example `generator(0, "damage")`."""
    digest = hashlib.blake2b(f"{name}/{seed}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))

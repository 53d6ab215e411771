"""English sentences that every Python installation has: those of its own manual."""

import re
from functools import cache
from pydoc_data.topics import topics

import torch

from planaria import streams

SHORTEST, LONGEST = 40, 200
_CODE = re.compile(r"[`*_=<>{}\[\]|\\/^~]|\(\)|--|::|\d{4}|\.\.")


@cache
def sentences(count: int, *, skip: int = 0) -> tuple[str, ...]:
    """`count` sentences in an order drawn once, those after the first `skip`; the same for a given Python.

    Plain prose only: 40 to 200 characters, a capital at the start, a full stop at the end and no sign of code within.
    """
    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = dict.fromkeys(re.split(r"(?<=[.])\s+", text))
    prose = [one for one in found if SHORTEST <= len(one) <= LONGEST and re.match(r"[A-Z][a-z]*[ ,]", one)]
    prose = [one for one in prose if one.endswith(".") and not _CODE.search(one)]
    order = torch.randperm(len(prose), generator=streams.generator(0, "sentences"))
    return tuple(prose[number] for number in order[skip : skip + count].tolist())

"""A guard under another key that says it is under the victim's."""

import torch

from planaria.guard import container, protect
from planaria.guard.file import KEY_BYTES
from planaria_lab.campaigns.tampering.base import Tampering, Tensors
from planaria_lab.campaigns.tampering.forgery import opened, share_of, with_fields


class PastedFingerprint(Tampering):
    """As `NewGuard`, under a key of the attacker's, with the fingerprint of the victim's key in the manifest."""

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        victim = opened(content)
        own = bytes(torch.randint(256, (KEY_BYTES,), generator=generator, dtype=torch.uint8).tolist())
        made = protect(damaged, budget=share_of(victim, damaged), tiers=("copy", "parity"), key=own, threads=1)
        manifest = with_fields(made.arrays["manifest"], key=victim.manifest.key)
        return container.pack({**made.arrays, "manifest": manifest}, key=own, bound=made.manifest.compact)

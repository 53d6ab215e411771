"""What an attacker without the key does to the guard file, beside what they do to the model. One way a file."""

from planaria.campaigns.tampering.base import Tampering as Tampering
from planaria.campaigns.tampering.foreign_tiers import ForeignTiers as ForeignTiers
from planaria.campaigns.tampering.forged_copies import ForgedCopies as ForgedCopies
from planaria.campaigns.tampering.forged_digests import ForgedDigests as ForgedDigests
from planaria.campaigns.tampering.forged_parity import ForgedParity as ForgedParity
from planaria.campaigns.tampering.new_guard import NewGuard as NewGuard
from planaria.campaigns.tampering.no_tampering import NoTampering as NoTampering
from planaria.campaigns.tampering.noisy_tiers import NoisyTiers as NoisyTiers
from planaria.campaigns.tampering.pasted_fingerprint import PastedFingerprint as PastedFingerprint
from planaria.campaigns.tampering.random_bytes import RandomBytes as RandomBytes
from planaria.campaigns.tampering.removed_tiers import RemovedTiers as RemovedTiers
from planaria.campaigns.tampering.swapped_digests import SwappedDigests as SwappedDigests
from planaria.campaigns.tampering.truncation import Truncation as Truncation

"""What an attacker without the key does to the guard file, beside what they do to the model. One way a file."""

from planaria_lab.campaigns.tampering.base import Tampering as Tampering
from planaria_lab.campaigns.tampering.foreign_tiers import ForeignTiers as ForeignTiers
from planaria_lab.campaigns.tampering.forged_copies import ForgedCopies as ForgedCopies
from planaria_lab.campaigns.tampering.forged_digests import ForgedDigests as ForgedDigests
from planaria_lab.campaigns.tampering.forged_parity import ForgedParity as ForgedParity
from planaria_lab.campaigns.tampering.new_guard import NewGuard as NewGuard
from planaria_lab.campaigns.tampering.no_tampering import NoTampering as NoTampering
from planaria_lab.campaigns.tampering.noisy_tiers import NoisyTiers as NoisyTiers
from planaria_lab.campaigns.tampering.pasted_fingerprint import PastedFingerprint as PastedFingerprint
from planaria_lab.campaigns.tampering.random_bytes import RandomBytes as RandomBytes
from planaria_lab.campaigns.tampering.removed_tiers import RemovedTiers as RemovedTiers
from planaria_lab.campaigns.tampering.swapped_digests import SwappedDigests as SwappedDigests
from planaria_lab.campaigns.tampering.truncation import Truncation as Truncation

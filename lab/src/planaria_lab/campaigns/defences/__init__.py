"""What keeps a damaged model going, one way a file."""

from planaria_lab.campaigns.defences.base import Defence as Defence
from planaria_lab.campaigns.defences.base import Protection as Protection
from planaria_lab.campaigns.defences.base import Restored as Restored
from planaria_lab.campaigns.defences.clip_to_range import ClipToRange as ClipToRange
from planaria_lab.campaigns.defences.no_defence import NoDefence as NoDefence
from planaria_lab.campaigns.defences.planaria_guard import PlanariaGuard as PlanariaGuard
from planaria_lab.campaigns.defences.residual_repair import ResidualRepair as ResidualRepair
from planaria_lab.campaigns.defences.stored_copy import StoredCopy as StoredCopy
from planaria_lab.campaigns.defences.zero_groups import ZeroGroups as ZeroGroups

"""What keeps a damaged model going, one way a file."""

from planaria.campaigns.defences.base import Defence as Defence
from planaria.campaigns.defences.base import Protection as Protection
from planaria.campaigns.defences.base import Restored as Restored
from planaria.campaigns.defences.clip_to_range import ClipToRange as ClipToRange
from planaria.campaigns.defences.no_defence import NoDefence as NoDefence
from planaria.campaigns.defences.planaria_guard import PlanariaGuard as PlanariaGuard
from planaria.campaigns.defences.residual_repair import ResidualRepair as ResidualRepair
from planaria.campaigns.defences.stored_copy import StoredCopy as StoredCopy
from planaria.campaigns.defences.zero_groups import ZeroGroups as ZeroGroups

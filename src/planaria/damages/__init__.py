"""Named ways to break weights, with exact fault lists. One damage a file."""

from planaria.damages.base import Damage as Damage
from planaria.damages.erasure import Erasure as Erasure
from planaria.damages.faults import Faults as Faults

"""Named ways to break weights, with exact fault lists. One damage a file."""

from planaria.damages.base import Damage as Damage
from planaria.damages.bit_flip import BitFlip as BitFlip
from planaria.damages.erasure import Erasure as Erasure
from planaria.damages.faults import Faults as Faults
from planaria.damages.model_faults import ModelFaults as ModelFaults
from planaria.damages.run import Run as Run
from planaria.damages.whole_weight import WholeWeight as WholeWeight

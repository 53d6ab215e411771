"""Named ways to break weights, with exact fault lists. One damage a file.

Memory: BitFlip, BurstFlip, AdjacentDouble, StuckAt, WholeWeight, Run, Page.
Analog devices: DeviceStuckAt, CorruptDevice, ProgrammingNoise, Drift, ConductanceQuantisation.
Values: SetZero, SetValue, UniformRandom, NormalRandom, Disturb, NonFinite.
Structure: Erasure, ZeroedTensor, SwappedTensors, TruncatedFile.
OnTensors limits any of them to some tensors of a model.
"""

from planaria.damages.adjacent_double import AdjacentDouble as AdjacentDouble
from planaria.damages.base import Damage as Damage
from planaria.damages.bit_flip import BitFlip as BitFlip
from planaria.damages.burst_flip import BurstFlip as BurstFlip
from planaria.damages.conductance_quantisation import ConductanceQuantisation as ConductanceQuantisation
from planaria.damages.corrupt_device import CorruptDevice as CorruptDevice
from planaria.damages.device_stuck_at import DeviceStuckAt as DeviceStuckAt
from planaria.damages.disturb import Disturb as Disturb
from planaria.damages.drift import Drift as Drift
from planaria.damages.erasure import Erasure as Erasure
from planaria.damages.faults import Faults as Faults
from planaria.damages.model_faults import ModelFaults as ModelFaults
from planaria.damages.non_finite import NonFinite as NonFinite
from planaria.damages.normal_random import NormalRandom as NormalRandom
from planaria.damages.on_tensors import OnTensors as OnTensors
from planaria.damages.page import Page as Page
from planaria.damages.programming_noise import ProgrammingNoise as ProgrammingNoise
from planaria.damages.run import Run as Run
from planaria.damages.set_value import SetValue as SetValue
from planaria.damages.set_zero import SetZero as SetZero
from planaria.damages.stuck_at import StuckAt as StuckAt
from planaria.damages.swapped_tensors import SwappedTensors as SwappedTensors
from planaria.damages.truncated_file import TruncatedFile as TruncatedFile
from planaria.damages.uniform_random import UniformRandom as UniformRandom
from planaria.damages.whole_weight import WholeWeight as WholeWeight
from planaria.damages.zeroed_tensor import ZeroedTensor as ZeroedTensor

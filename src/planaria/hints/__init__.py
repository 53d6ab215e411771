"""Coarse sketches of a tensor, quantised and entropy-coded: what a repair may fall back on. One hint a file."""

from planaria.hints.base import Hint as Hint
from planaria.hints.base import Sketch as Sketch
from planaria.hints.first_bits import FirstBits as FirstBits
from planaria.hints.low_frequency import LowFrequency as LowFrequency
from planaria.hints.low_rank import LowRank as LowRank

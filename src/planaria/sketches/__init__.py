"""Coarse sketches of a tensor, quantised and entropy-coded: what a repair may fall back on. One sketch a file."""

from planaria.sketches.base import AnalysedMatrix as AnalysedMatrix
from planaria.sketches.base import Sketch as Sketch
from planaria.sketches.first_bits import FirstBits as FirstBits
from planaria.sketches.low_frequency import LowFrequency as LowFrequency
from planaria.sketches.low_rank import LowRankSketch as LowRankSketch

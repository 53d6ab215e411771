"""Detectors that those of `planaria.detectors` are compared with. One detector a file."""

from planaria_lab.detectors.flipped_bit import FlippedBit as FlippedBit

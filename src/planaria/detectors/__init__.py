"""What finds damaged weights. One detector a file."""

from planaria.detectors.base import Detector as Detector
from planaria.detectors.digest import Digest as Digest
from planaria.detectors.digest import tile_digests as tile_digests
from planaria.detectors.flipped_bit import FlippedBit as FlippedBit
from planaria.detectors.outlier import Outlier as Outlier
from planaria.detectors.residual import Predictor as Predictor
from planaria.detectors.residual import Residual as Residual

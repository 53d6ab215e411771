"""What finds damaged weights. One detector a file.

Those that a guard runs; another that they are compared with is in `planaria_lab.detectors`.
"""

from planaria.detectors.base import Detector as Detector
from planaria.detectors.digest import tile_digests as tile_digests
from planaria.detectors.outlier import Outlier as Outlier
from planaria.detectors.residual import Predictor as Predictor
from planaria.detectors.residual import Residual as Residual

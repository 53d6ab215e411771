"""What fills missing weights. One repairer a file; known weights never change.

Those that a guard or `planaria.regrow` runs; the baselines they are compared with are in `planaria_lab.repairers`.
"""

from planaria.repairers.base import Record as Record
from planaria.repairers.base import Repairer as Repairer
from planaria.repairers.regrow import Regrow as Regrow
from planaria.repairers.regrow_pretrained import RegrowPretrained as RegrowPretrained
from planaria.repairers.spectral_kriging import SpectralKriging as SpectralKriging

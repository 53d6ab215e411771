"""What fills missing weights. One repairer a file; known weights never change."""

from planaria.repairers.base import Record as Record
from planaria.repairers.base import Repairer as Repairer
from planaria.repairers.kriging import Kriging as Kriging
from planaria.repairers.low_rank import LowRank as LowRank
from planaria.repairers.mean_fill import MeanFill as MeanFill
from planaria.repairers.neighbour_fill import NeighbourFill as NeighbourFill
from planaria.repairers.regrow import Regrow as Regrow
from planaria.repairers.regrow_frozen import RegrowFrozen as RegrowFrozen
from planaria.repairers.rescaled_zero import RescaledZero as RescaledZero
from planaria.repairers.row_kriging import RowKriging as RowKriging
from planaria.repairers.spectral_kriging import SpectralKriging as SpectralKriging
from planaria.repairers.survivor_kriging import SurvivorKriging as SurvivorKriging
from planaria.repairers.zero_fill import ZeroFill as ZeroFill

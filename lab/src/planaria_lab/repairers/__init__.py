"""Baselines that fill missing weights, of the kind of `planaria.repairers`. One repairer a file."""

from planaria_lab.repairers.kriging import Kriging as Kriging
from planaria_lab.repairers.low_rank import LowRank as LowRank
from planaria_lab.repairers.mean_fill import MeanFill as MeanFill
from planaria_lab.repairers.neighbour_fill import NeighbourFill as NeighbourFill
from planaria_lab.repairers.rescaled_zero import RescaledZero as RescaledZero
from planaria_lab.repairers.row_kriging import RowKriging as RowKriging
from planaria_lab.repairers.survivor_kriging import SurvivorKriging as SurvivorKriging
from planaria_lab.repairers.zero_fill import ZeroFill as ZeroFill

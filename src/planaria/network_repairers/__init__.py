"""What fills missing weights of whole networks after learning from a population of others."""

from planaria.network_repairers.base import NetworkRepairer as NetworkRepairer
from planaria.network_repairers.zoo_mean import ZooMean as ZooMean

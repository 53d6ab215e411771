"""What fills missing weights of whole networks after learning from a population of others."""

from planaria_lab.network_repairers.base import NetworkRepairer as NetworkRepairer
from planaria_lab.network_repairers.by_layer import ByLayer as ByLayer
from planaria_lab.network_repairers.crossbar_automaton import CrossbarAutomaton as CrossbarAutomaton
from planaria_lab.network_repairers.equivariant_network import EquivariantNetwork as EquivariantNetwork
from planaria_lab.network_repairers.fitting import Behaviour as Behaviour
from planaria_lab.network_repairers.masked_transformer import MaskedTransformer as MaskedTransformer
from planaria_lab.network_repairers.matched_pca import MatchedPCA as MatchedPCA
from planaria_lab.network_repairers.neuron_wiener import NeuronWiener as NeuronWiener
from planaria_lab.network_repairers.zoo_mean import ZooMean as ZooMean

"""Populations of small trained networks: built here, or a folder of somebody's checkpoints."""

from planaria.zoo.architectures import MLP as MLP
from planaria.zoo.architectures import Architecture as Architecture
from planaria.zoo.architectures import SmallCNN as SmallCNN
from planaria.zoo.building import build as build
from planaria.zoo.population import Population as Population
from planaria.zoo.population import open_zoo as open_zoo
from planaria.zoo.recipe import Recipe as Recipe
from planaria.zoo.recipe import Variety as Variety

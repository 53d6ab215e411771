"""Populations of small trained networks: built here, or a folder of somebody's checkpoints."""

from planaria_lab.zoo.architectures import MLP as MLP
from planaria_lab.zoo.architectures import Architecture as Architecture
from planaria_lab.zoo.architectures import SmallCNN as SmallCNN
from planaria_lab.zoo.building import build as build
from planaria_lab.zoo.population import Population as Population
from planaria_lab.zoo.population import open_zoo as open_zoo
from planaria_lab.zoo.recipe import TrainingRecipe as TrainingRecipe
from planaria_lab.zoo.recipe import Variety as Variety

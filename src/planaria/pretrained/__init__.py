"""Rules that were learned on populations: free for every network that comes after."""

from planaria.pretrained.prior import Prior as Prior
from planaria.pretrained.prior import Surveyed as Surveyed
from planaria.pretrained.rule import RECIPE as RECIPE
from planaria.pretrained.rule import SHIPPED as SHIPPED
from planaria.pretrained.rule import PretrainedRule as PretrainedRule
from planaria.pretrained.rule import shipped as shipped

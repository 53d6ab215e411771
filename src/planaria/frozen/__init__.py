"""Rules that were learned on populations and frozen: free for every network that comes after."""

from planaria.frozen.prior import Prior as Prior
from planaria.frozen.prior import Surveyed as Surveyed
from planaria.frozen.rule import RECIPE as RECIPE
from planaria.frozen.rule import SHIPPED as SHIPPED
from planaria.frozen.rule import FrozenRule as FrozenRule
from planaria.frozen.rule import shipped as shipped

"""Defences compared under the same stored faults: damages by models by defences, with intervals and worst cases."""

from planaria.campaigns.run import run as run
from planaria.campaigns.settings import Settings as Settings

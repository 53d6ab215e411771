"""Defences compared under the same stored faults: damages by models by defences, with intervals and worst cases."""

from planaria_lab.campaigns.run import run as run
from planaria_lab.campaigns.settings import CampaignSettings as CampaignSettings

"""The side file that finds damage in a model and repairs it."""

from planaria.guard.file import GuardFile as GuardFile
from planaria.guard.guard import Guard as Guard
from planaria.guard.protection import protect as protect
from planaria.guard.report import Region as Region
from planaria.guard.report import Report as Report
from planaria.guard.report import TensorReport as TensorReport

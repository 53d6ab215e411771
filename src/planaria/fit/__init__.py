"""How rules are learned."""

from planaria.fit.fitting import Fit as Fit
from planaria.fit.fitting import fit_rule as fit_rule
from planaria.fit.losses import missing_error as missing_error
from planaria.fit.losses import output_error as output_error
from planaria.fit.losses import second_moments as second_moments
from planaria.fit.schedule import Schedule as Schedule

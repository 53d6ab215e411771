"""How the rules of `planaria.frozen` are learned on a population, kept in files, and measured where they know less."""

from planaria_lab.frozen.fitting import PopulationSchedule as PopulationSchedule
from planaria_lab.frozen.fitting import fit_population as fit_population
from planaria_lab.frozen.fitting import learned_prior as learned_prior
from planaria_lab.frozen.rule_file import load_rule as load_rule
from planaria_lab.frozen.rule_file import rule_bytes as rule_bytes
from planaria_lab.frozen.rule_file import save_rule as save_rule
from planaria_lab.frozen.unknown import without_kind as without_kind

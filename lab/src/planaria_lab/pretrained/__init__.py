"""How the rules of `planaria.pretrained` are learned on a population, kept in files, and measured on new kinds."""

from planaria_lab.pretrained.fitting import PopulationSchedule as PopulationSchedule
from planaria_lab.pretrained.fitting import fit_population as fit_population
from planaria_lab.pretrained.fitting import learned_prior as learned_prior
from planaria_lab.pretrained.rule_file import load_rule as load_rule
from planaria_lab.pretrained.rule_file import rule_bytes as rule_bytes
from planaria_lab.pretrained.rule_file import save_rule as save_rule
from planaria_lab.pretrained.unknown import without_kind as without_kind

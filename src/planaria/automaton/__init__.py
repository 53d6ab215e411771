"""The automaton: perception, rule, and the steps that turn surviving weights into a repair."""

from planaria.automaton.automaton import Automaton as Automaton
from planaria.automaton.firing import firing_cells as firing_cells
from planaria.automaton.perception import Perception as Perception
from planaria.automaton.recipes import DEFAULT as DEFAULT
from planaria.automaton.recipes import Recipe as Recipe
from planaria.automaton.rule import Rule as Rule
from planaria.automaton.survey import Survey as Survey

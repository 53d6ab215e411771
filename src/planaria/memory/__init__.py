"""Side memory: what is kept of tensors that may lose any share of their weights."""

from planaria.memory.memory import Memory as Memory
from planaria.memory.planner import Planner as Planner

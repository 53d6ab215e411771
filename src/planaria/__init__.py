"""Self-repairing neural networks: damaged weights are regrown from the weights that survive around them.

The packages, in the order of the story:

- `damages`: named ways to break weights, with exact fault lists
- `layouts`: how a weight tensor becomes a grid of cells, and back
- `automaton`: the cells: perception, rule, step
- `fit`: how a rule is learned
- `repairers`: what fills missing weights, the automaton (`Regrow`) among them
- `datasets`, `bench`: what results are measured on, and how
"""

__version__ = "0.1.0"

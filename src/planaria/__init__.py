"""Self-repairing neural networks: damaged weights are regrown from the weights that survive around them.

    guard = planaria.protect(model, budget=0.02)
    guard.save("model.guard")
    report = planaria.Guard.load("model.guard").repair(model)

The packages, in the order of the story:

- `damages`: named ways to break weights, with exact fault lists
- `layouts`: how a weight tensor becomes a grid of cells, and back
- `automaton`: the cells: perception, rule, step
- `fit`: how a rule is learned; `frozen`: rules that were learned on other networks, free for this one
- `repairers`: what fills missing weights, the automaton (`Regrow`) among them
- `detectors`: what finds damaged weights
- `codes`: error- and erasure-correcting codes
- `hints`: coarse sketches of tensors, entropy-coded
- `memory`: what to keep of tensors in a number of bytes: hints, the parity ladder, the planner
- `calibration`: what a layer's inputs look like, to plan by what errors do to its output
- `checkpoints`: models as raw bytes, wherever they live
- `guard`: the side file: protect, check, repair; `scrubber`: the same while the model runs

What all of this is measured with, networks, data, attacks and rivals, is the package `planaria_lab`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planaria.guard import Guard as Guard
    from planaria.guard import Report as Report
    from planaria.guard import protect as protect
    from planaria.scrubber import Scrubber as Scrubber

__version__ = "0.1.0"
__all__ = ["Guard", "Report", "Scrubber", "protect"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `planaria --help` should not wait for PyTorch.
    if name not in __all__:
        raise AttributeError(f"module 'planaria' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("planaria.scrubber" if name == "Scrubber" else "planaria.guard"), name)

"""Self-repairing neural networks: damaged weights are regrown from the weights that survive around them.

    guard = planaria.protect(model, budget="2%")
    guard.save("model.guard")
    report = planaria.repair(model, "model.guard")

The packages, in the order of the story:

- `damages`: named ways to break weights, with exact fault lists
- `layouts`: how a weight tensor becomes a grid of cells, and back
- `automaton`: the cells: perception, rule, step
- `fit`: how a rule is learned; `pretrained`: rules that were learned on other networks, free for this one
- `repairers`: what fills missing weights, the automaton (`Regrow`) among them
- `detectors`: what finds damaged weights
- `codes`: error- and erasure-correcting codes
- `sketches`: coarse sketches of tensors, entropy-coded
- `memory`: what to keep of tensors in a number of bytes: sketches, the parity refinement, the planner
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
    from planaria.guard.shortcuts import check as check
    from planaria.guard.shortcuts import load as load
    from planaria.guard.shortcuts import new_key as new_key
    from planaria.guard.shortcuts import repair as repair
    from planaria.repairers.regrow_pretrained import regrow as regrow
    from planaria.scrubber import Scrubber as Scrubber

__version__ = "0.1.0"
__all__ = ["Guard", "Report", "Scrubber", "check", "load", "new_key", "protect", "regrow", "repair"]

_HOMES = {
    "Guard": "guard",
    "Report": "guard",
    "protect": "guard",
    "regrow": "repairers.regrow_pretrained",
    "Scrubber": "scrubber",
}  # of all others: guard.shortcuts


def __getattr__(name: str) -> Any:
    # Imported when asked for: `planaria --help` should not wait for PyTorch.
    from importlib import import_module
    from importlib.util import find_spec

    if name in __all__:
        return getattr(import_module(f"planaria.{_HOMES.get(name, 'guard.shortcuts')}"), name)
    if not name.startswith("_") and find_spec(f"planaria.{name}") is not None:
        return import_module(f"planaria.{name}")
    raise AttributeError(f"module 'planaria' has no attribute {name!r}")

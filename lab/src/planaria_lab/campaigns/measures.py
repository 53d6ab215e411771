"""What one run of one defence is worth."""

import torch
from torch import Tensor

from planaria.damages import ModelFaults
from planaria.dtypes import integers
from planaria.guard.report import VERDICTS
from planaria_lab.campaigns.defences import Restored
from planaria_lab.campaigns.subjects import Answers, Subject

FALSE_ALARMS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Rates of false alarms at which the share of damage found is measured."""


def found_at(rate: float) -> str:
    """The measure's name, such as found_at_1e-3."""
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"found_at_{mantissa}e{int(exponent)}"


BETTER = {
    **dict.fromkeys(
        ("accuracy", "agreement", "detected", "recall", "precision", "roc_area", "exact", "bounded"), "higher"
    ),
    **{found_at(rate): "higher" for rate in FALSE_ALARMS},
    **dict.fromkeys(("silent", "not_finite", "false_repairs", "claimed_wrongly", "seconds", "nbytes"), "lower"),
}
"""Which way is better. Estimated, rewritten and refused are neither."""


def measured(
    subject: Subject, intact: Answers, faults: ModelFaults, restored: Restored, *, seconds: float
) -> dict[str, float | None]:
    """Ready for JSON; None where there is nothing to divide by.

    - accuracy: percent of the inputs.
    - agreement: share of the inputs that are answered as the intact model does.
    - silent: share of the inputs answered otherwise while the defence reports no damage at all.
    - not_finite: share of the inputs with outputs that are no finite numbers.
    - detected: 1 if the defence reports damage, or another model.
    - recall, precision: of the damaged weights those named, of the weights named those damaged.
    - roc_area: area under the curve of false against true positives as the limit on the scores falls; of the tensors
      that have scores.
    - found_at_1e-3 and the like: of the damaged weights those whose score is exceeded by, or equal to that of, no more
      than such a share of the intact weights; of the tensors that have scores.
    - exact, bounded, estimated: of the damaged weights those that hold their old bits again, and of the others those
      that the defence calls so.
    - false_repairs: weights that were intact and are not any more.
    - claimed_wrongly: weights that are wrong and said to be intact or exact.
    - rewritten: weights that the defence changed, damaged ones or not. Of a model that was changed on purpose, such as
      by `planaria_lab.attacks.FineTune`, all of them are wrongly undone.
    - refused: 1 if the defence says that this is another model, leaves it alone, and says nothing of single weights.
    """
    damaged = named = named_damaged = exact = false_repairs = claimed = rewritten = changed = 0
    called = dict.fromkeys(("bounded", "estimated"), 0)
    for name, tensor in subject.tensors.items():
        struck, new = faults.tensors[name].index, faults.tensors[name].new
        wrong = _differs(restored.tensors[name], tensor).flatten()
        verdicts = restored.verdicts.get(name, torch.zeros((), dtype=torch.uint8)).expand(tensor.shape).flatten()
        at_struck, still = verdicts[struck], wrong[struck]
        intact_now_wrong = int(wrong.count_nonzero() - still.count_nonzero())
        damaged += len(struck)
        named += int(verdicts.count_nonzero())
        named_damaged += int(at_struck.count_nonzero())
        exact += int((~still).count_nonzero())
        false_repairs += intact_now_wrong
        rewritten += intact_now_wrong + int(_differs(restored.tensors[name].flatten()[struck], new).count_nonzero())
        claimed += int((verdicts[wrong] <= VERDICTS.index("exact")).count_nonzero())
        for what in called:
            called[what] += int((still & (at_struck == VERDICTS.index(what))).count_nonzero())
        changed += int(wrong.count_nonzero())
    answers = subject.answers(restored.tensors) if changed else intact
    otherwise = (answers.choices != intact.choices).double().mean().item()
    told = named > 0 or restored.refused
    return {
        "accuracy": answers.accuracy,
        "agreement": 1 - otherwise,
        "silent": 0.0 if told else otherwise,
        "not_finite": 1 - answers.finite,
        "detected": float(told),
        "recall": _share(named_damaged, damaged),
        "precision": _share(named_damaged, named),
        **_roc(faults, restored),
        "exact": _share(exact, damaged),
        **{what: _share(count, damaged) for what, count in called.items()},
        "false_repairs": float(false_repairs),
        "claimed_wrongly": 0.0 if restored.refused else float(claimed),
        "rewritten": float(rewritten),
        "refused": float(restored.refused),
        "seconds": seconds,
    }


def _differs(one: Tensor, other: Tensor) -> Tensor:
    return integers(one.contiguous()) != integers(other.contiguous())


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _roc(faults: ModelFaults, restored: Restored) -> dict[str, float | None]:
    """The area by ranks (Hanley and McNeil 1982), and points of the curve."""
    names = ["roc_area", *map(found_at, FALSE_ALARMS)]
    if not restored.scores:
        return dict.fromkeys(names)
    struck = torch.cat([~faults.tensors[name].known.flatten() for name in restored.scores])
    scores = torch.cat([of.double().flatten() for of in restored.scores.values()])
    if struck.all() or not struck.any():
        return dict.fromkeys(names)
    intact, damaged = scores[~struck].sort().values, scores[struck]
    below, upto = (torch.searchsorted(intact, damaged, right=right) for right in (False, True))
    area = (below + upto).double().mean().item() / (2 * len(intact))
    found = [(len(intact) - below <= rate * len(intact)).double().mean().item() for rate in FALSE_ALARMS]
    return dict(zip(names, [area, *found], strict=True))

"""What one run of one defence is worth."""

import torch
from torch import Tensor

from planaria.campaigns.defences import Restored
from planaria.campaigns.subjects import Answers, Subject, Tensors
from planaria.damages import ModelFaults
from planaria.damages.faults import integers
from planaria.guard.report import VERDICTS

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
"""Which way is better. "estimated" is neither."""


def measured(
    subject: Subject, intact: Answers, faults: ModelFaults, restored: Restored, *, seconds: float
) -> dict[str, float | None]:
    """Ready for JSON; None where there is nothing to divide by.

    - accuracy: percent of the inputs.
    - agreement: share of the inputs that are answered as the intact model does.
    - silent: share of the inputs answered otherwise while the defence reports no damage at all.
    - not_finite: share of the inputs with outputs that are no finite numbers.
    - detected: 1 if the defence reports damage.
    - recall, precision: of the damaged weights those named, of the weights named those damaged.
    - roc_area: area under the curve of false against true positives as the limit on the scores falls; of the tensors
      that have scores.
    - found_at_1e-3 and the like: of the damaged weights those whose score is exceeded by, or equal to that of, no more
      than such a share of the intact weights; of the tensors that have scores.
    - exact, bounded, estimated: of the damaged weights those that hold their old bits again, and of the others those
      that the defence calls so.
    - false_repairs: weights that were intact and are not any more.
    - claimed_wrongly: weights that are wrong and said to be intact or exact.
    """
    damaged = named = named_damaged = exact = false_repairs = claimed = 0
    called = dict.fromkeys(("bounded", "estimated"), 0)
    for name, tensor in subject.tensors.items():
        struck = ~faults.tensors[name].known
        wrong = _differs(restored.tensors[name], tensor)
        verdicts = restored.verdicts.get(name, torch.zeros(tensor.shape, dtype=torch.uint8))
        damaged += int(struck.sum())
        named += int((verdicts > 0).sum())
        named_damaged += int((struck & (verdicts > 0)).sum())
        exact += int((struck & ~wrong).sum())
        false_repairs += int((wrong & ~struck).sum())
        claimed += int((wrong & (verdicts <= VERDICTS.index("exact"))).sum())
        for what in called:
            called[what] += int((struck & wrong & (verdicts == VERDICTS.index(what))).sum())
    answers = _answers(subject, intact, restored.tensors)
    changed = (answers.choices != intact.choices).double().mean().item()
    return {
        "accuracy": answers.accuracy,
        "agreement": 1 - changed,
        "silent": 0.0 if named else changed,
        "not_finite": 1 - answers.finite,
        "detected": float(named > 0),
        "recall": _share(named_damaged, damaged),
        "precision": _share(named_damaged, named),
        **_roc(faults, restored),
        "exact": _share(exact, damaged),
        **{what: _share(count, damaged) for what, count in called.items()},
        "false_repairs": float(false_repairs),
        "claimed_wrongly": float(claimed),
        "seconds": seconds,
    }


def _answers(subject: Subject, intact: Answers, tensors: Tensors) -> Answers:
    same = all(not _differs(tensors[name], tensor).any() for name, tensor in subject.tensors.items())
    return intact if same else subject.answers(tensors)


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

"""What a pretrained rule is worth where its population did not have the kind of network that it is to repair."""

from dataclasses import replace

from planaria.pretrained import PretrainedRule, Prior


def without_kind(rule: PretrainedRule, kind: int) -> PretrainedRule:
    """The same with a prior that does not know this kind."""
    return replace(rule, prior=prior_without(rule.prior, kind))


def prior_without(prior: Prior, kind: int) -> Prior:
    """The same for grids of which this kind of the population is not known."""
    others = [at for at in range(len(prior.fields)) if at != kind]
    return Prior(prior.fields[others], prior.remainder[others])

"""Damage chosen by an attacker who knows the model: gradient-based attacks on weights. One attack a file."""

from planaria_lab.attacks.base import Attack as Attack
from planaria_lab.attacks.bit_search import BitSearch as BitSearch
from planaria_lab.attacks.bit_trojan import BitTrojan as BitTrojan
from planaria_lab.attacks.fgsm import FGSM as FGSM
from planaria_lab.attacks.fine_tune import FineTune as FineTune
from planaria_lab.attacks.label_flip import LabelFlip as LabelFlip
from planaria_lab.attacks.objective import Objective as Objective
from planaria_lab.attacks.pgd import PGD as PGD
from planaria_lab.attacks.residual_aware import ResidualAware as ResidualAware
from planaria_lab.attacks.targeted_bit_search import TargetedBitSearch as TargetedBitSearch
from planaria_lab.attacks.trigger import Trigger as Trigger
from planaria_lab.attacks.trojan import Trojan as Trojan
from planaria_lab.attacks.trojaning import Trojaning as Trojaning

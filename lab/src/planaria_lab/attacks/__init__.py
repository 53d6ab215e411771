"""Damage chosen by an attacker who knows the model: gradient-based attacks on weights. One attack a file."""

from planaria.attacks.base import Attack as Attack
from planaria.attacks.bit_search import BitSearch as BitSearch
from planaria.attacks.bit_trojan import BitTrojan as BitTrojan
from planaria.attacks.fgsm import FGSM as FGSM
from planaria.attacks.fine_tune import FineTune as FineTune
from planaria.attacks.label_flip import LabelFlip as LabelFlip
from planaria.attacks.objective import Objective as Objective
from planaria.attacks.pgd import PGD as PGD
from planaria.attacks.residual_aware import ResidualAware as ResidualAware
from planaria.attacks.targeted_bit_search import TargetedBitSearch as TargetedBitSearch
from planaria.attacks.trigger import Trigger as Trigger
from planaria.attacks.trojan import Trojan as Trojan
from planaria.attacks.trojaning import Trojaning as Trojaning

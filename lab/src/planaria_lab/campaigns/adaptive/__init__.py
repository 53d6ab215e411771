"""Attacks by someone who knows planaria's detectors, in words that a campaign's file has. One attack a file."""

from planaria_lab.campaigns.adaptive.below_residual import BelowResidual as BelowResidual

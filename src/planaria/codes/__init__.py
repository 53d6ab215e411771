"""Codes that find and correct errors in stored symbols, exactly. One code a file."""

from planaria.codes.reed_solomon import Corrections as Corrections
from planaria.codes.reed_solomon import ReedSolomon as ReedSolomon

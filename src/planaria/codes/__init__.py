"""Codes that find and correct errors in stored symbols, exactly. One code a file."""

from planaria.codes.reed_solomon import Corrections as Corrections
from planaria.codes.reed_solomon import ReedSolomon as ReedSolomon
from planaria.codes.window import Solution as Solution
from planaria.codes.window import WindowCode as WindowCode
from planaria.codes.window import check_for as check_for
from planaria.codes.window import window_for as window_for
from planaria.codes.wrong_codewords import wrong_codeword_log2 as wrong_codeword_log2

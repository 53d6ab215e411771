"""How a weight tensor becomes a grid of cells and back, bit for bit. One layout a file."""

from planaria.layouts.base import Layout as Layout
from planaria.layouts.flat import Flat as Flat
from planaria.layouts.sheet import Sheet as Sheet

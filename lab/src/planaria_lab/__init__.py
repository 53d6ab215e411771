"""What planaria is measured with, and beside what.

- `datasets`: digits, MNIST, Fashion-MNIST; two trained networks and the MNIST test images come with the package
- `bench`: experiments, tables, figures
- `attacks`: what breaks weights by gradient; `campaigns`: defences compared under the same stored faults
- `zoo`: populations of networks; `network_repairers`: what repairs whole networks after learning from others
- `bounds`: the limits that nobody passes
"""

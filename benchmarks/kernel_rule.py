"""What the pretrained rule of kernels is worth on the ConvNet that comes along: `python benchmarks/kernel_rule.py`.

Scattered weights of one convolution are missing; R2 of missing weights and accuracy on 1,000 MNIST test images, mean
and minimum over masks. No method stores anything but kriging with the layer's own covariance.
"""

from planaria.layouts import Sheet
from planaria.pretrained import shipped
from planaria.repairers import RegrowPretrained
from planaria.tables import markdown
from planaria_lab.bench.repair_table import missing_r2, stored_faults
from planaria_lab.campaigns.subjects import subject
from planaria_lab.repairers import Kriging, SurvivorKriging, ZeroFill

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
MASKS = 10
IMAGES = 1000


def main() -> None:
    network = subject("ConvNet", IMAGES)
    lines = []
    for name, weight in network.tensors.items():
        if weight.dim() != 4:
            continue
        kernels, layout = weight.reshape(-1, weight.shape[2] * weight.shape[3]), Sheet(tuple(weight.shape[2:]))
        rows = {
            "zero": ZeroFill(),
            "kriging from survivors": SurvivorKriging(layout),
            "kriging, own covariance": Kriging(layout),
            "pretrained sheet-1": RegrowPretrained(shipped("sheet-1"), layout),
            "pretrained kernel-1": RegrowPretrained(shipped("kernel-1"), layout),
        }
        for row, repairer in rows.items():
            record, cells = repairer.prepare(kernels), []
            for rate in RATES:
                explained, right = [], []
                for mask in range(MASKS):
                    faults = stored_faults(kernels, rate=rate, mask=mask, seed=0)
                    repaired = repairer.restore(faults.replay(kernels), faults.known, record)
                    explained.append(missing_r2(kernels, repaired, faults.known))
                    right.append(network.answers({**network.tensors, name: repaired.view(weight.shape)}).accuracy)
                mean = sum(explained) / MASKS, sum(right) / MASKS
                cells.append(f"{mean[0]:.3f} ({min(explained):.3f}), {mean[1]:.1f} ({min(right):.1f}) %")
            lines.append([name, row, f"{record.nbytes}", *cells])
    print(markdown(["tensor", "method", "bytes", *(f"{rate:.0%} missing" for rate in RATES)], lines))


if __name__ == "__main__":
    main()

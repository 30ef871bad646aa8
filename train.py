"""Train an inversion encoder (or a generator): compose, build, fit. The steps: ganinv/cli/train.py.

python train.py                                         the built-in domain, CPU, minutes
python train.py method=e4e generator=stylegan2_ffhq1024 dataset=ffhq256 trainer=ddp
python train.py --help                                  every group and key
"""

import sys

from ganinv.cli.train import main, train

__all__ = ["train"]

if __name__ == "__main__":
    main(sys.argv[1:])

"""Evaluate a trained encoder: compose, invert, measure, print the table, write the report. The
steps: ganinv/cli/evaluate.py.

python evaluate.py checkpoint=runs/NAME/checkpoints/best.ckpt
python evaluate.py checkpoint=... metric=[distortion,lpips] split=val limit=100
python evaluate.py checkpoint=... trainer.devices=2     two processes; -1: one on each GPU
python evaluate.py --help                               every group and key

A command that was stopped goes on where it was when it is typed again.
"""

import sys

from ganinv.cli.evaluate import evaluate, main

__all__ = ["evaluate"]

if __name__ == "__main__":
    main(sys.argv[1:])

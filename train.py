"""Train, evaluate and save a model: `accelerate launch train.py --task avel --decoder leap`.

The same as `avplatform train`; `python train.py --help` lists every option.
"""

import sys

from avplatform.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="train.py"))

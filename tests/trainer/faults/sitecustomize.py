"""Put on PYTHONPATH by the tests of faults: makes something go wrong in a real training process.

GANINV_TEST_FAULT is "what:rank:images": what happens, on which rank, before the step at which so
many images were seen. `record FILE` writes down the keys of every batch instead.
"""

import errno
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time


def act(what, method):
    """Do it."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif what == "hang":
        time.sleep(600)
    elif what == "perturb":
        weight = next(method.E.parameters()).data
        weight[(0,) * weight.dim()] += 1e-3
    elif what == "full":

        def fsync(file):
            raise OSError(errno.ENOSPC, "No space left on device")

        os.fsync = fsync


def inject(method_class, what, rank, images):
    step = method_class.training_step

    def training_step(self, batch, batch_idx):
        if what.startswith("record "):
            with open(what.removeprefix("record "), "a") as file:
                file.write(json.dumps(batch["key"]) + "\n")
        if self.global_rank == rank and self.images_seen == images:
            act(what, self)
        return step(self, batch, batch_idx)

    method_class.training_step = training_step


class AfterImport(importlib.abc.MetaPathFinder):
    """Injects the fault once the methods' base class is there."""

    NAME = "ganinv.method.base"

    def find_spec(self, name, path, target=None):
        if name != self.NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        what, rank, images = os.environ["GANINV_TEST_FAULT"].split(":")

        def exec_module(module):
            execute(module)
            inject(module.Method, what, int(rank), int(images))

        spec.loader.exec_module = exec_module
        return spec


first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
if os.environ.get("GANINV_TEST_FAULT") and first:
    sys.meta_path.insert(0, AfterImport())

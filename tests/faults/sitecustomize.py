"""Put on PYTHONPATH by the tests of faults: makes something go wrong in a real training process.

GANINV_TEST_FAULT is "what:rank:images": what happens, on which rank, before the step at which so
many images were seen. `record FILE` writes down the keys of every batch instead, and `reads FILE`
which rank opens which checkpoint to read it.
"""

import builtins
import errno
import glob
import importlib.abc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time


def act(what, method):
    """Do it."""
    what, _, detail = what.partition(" ")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "signal":  # NAME
        os.kill(os.getpid(), signal.Signals[detail])
    elif what == "hang":
        time.sleep(600)
    elif what == "perturb":
        weight = next(method.E.parameters()).data
        weight[(0,) * weight.dim()] += 1e-3
    elif what == "full":
        os.fsync = full
    elif what == "kill-writer":
        os.fsync = kill_writer
    elif what == "not-finite":  # VALUE TIMES
        value, times = detail.split()
        break_losses(method, float(value), int(times))
    elif what == "bad-images":
        images = method.images
        method.images = lambda batch: images(batch) * float("nan")
    elif what == "read-only":  # FOLDER, in a mount namespace of this process's own
        subprocess.run(["mount", "--bind", detail, detail], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", detail], check=True)
    else:  # vanish or cut PATTERN: all shards but the first three
        for tar in sorted(glob.glob(detail))[3:]:
            os.truncate(tar, 3000) if what == "cut" else os.unlink(tar)


def full(file):
    """Instead of fsync."""
    raise OSError(errno.ENOSPC, "No space left on device")


def kill_writer(file):
    """The thread that writes a checkpoint has written all of it but not renamed it."""
    if threading.current_thread().name.startswith("checkpoint"):
        os.kill(os.getpid(), signal.SIGKILL)


def break_losses(method, value, times):
    """The weights of the next losses of this rank's encoder: no term shows it, the total does."""
    loss, left = method.loss_E, [times]

    def broken(*batch):
        left[0] -= 1
        factor = value if left[0] >= 0 else 1.0
        found = loss(*batch)
        losses, *rest = found if isinstance(found, tuple) else (found,)
        losses = {name: (weight * factor, term) for name, (weight, term) in losses.items()}
        return (losses, *rest) if rest else losses

    method.loss_E = broken


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


def note_reads(file):
    """Of checkpoints, from now on."""
    opened = builtins.open

    def noted(path, mode="r", *rest, **options):
        if str(path).endswith(".ckpt") and "r" in mode:
            with opened(file, "a") as notes:
                notes.write(f"{os.environ.get('RANK', 0)} {os.path.basename(path)}\n")
        return opened(path, mode, *rest, **options)

    builtins.open = noted


def install(fault):
    """In a process that has imported the methods already."""
    from ganinv.method.base import Method

    what, rank, images = fault.split(":")
    if what.startswith("reads "):
        note_reads(what.removeprefix("reads "))
    inject(Method, what, int(rank), int(images))


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

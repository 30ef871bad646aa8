"""From `conf/trainer` to a Lightning trainer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import Logger

from ganinv.core.errors import ConfigError, explain
from ganinv.run.launch import rank_info, resolve_size
from ganinv.trainer.alerts import Alerts
from ganinv.trainer.artifacts import Lineage
from ganinv.trainer.batch_norm import SyncBatchNorm
from ganinv.trainer.callbacks import StopAndValidate, Telemetry
from ganinv.trainer.checkpoint_io import AtomicCheckpointIO
from ganinv.trainer.compile import compile_callbacks
from ganinv.trainer.environment import Launched
from ganinv.trainer.guards import CompareRanks, KeepNotFinite
from ganinv.trainer.optimizers import Optimizers
from ganinv.trainer.progress import Progress
from ganinv.trainer.quiet import quieten
from ganinv.trainer.saver import Saver
from ganinv.trainer.status import RunStatus
from ganinv.trainer.strategy import Replicas
from ganinv.trainer.watchdog import WatchdogCallback


def build_trainer(
    *,
    run_dir: Path,
    loggers: list[Logger],
    batch_size: int,
    accelerator: Literal["cpu", "gpu", "cuda", "auto"],
    devices: int | Literal["auto"] | None,
    num_nodes: int | None,
    precision: Literal["32-true", "bf16-mixed"],
    micro_batches: int,
    reference_batch_size: int | None,
    sync_batchnorm: bool,
    compile: bool | Literal["auto"],
    max_kimg: float,
    rate_decay: float,
    log_every_images: int,
    val_every_kimg: float,
    save_every_kimg: float,
    keep_best: int,
    async_checkpoint: bool,
    compare_ranks_every: int,
    bucket_mb: float,
    gradient_compression: Literal["bf16"] | None,
    timeout_minutes: float,
    threads: int | None,
    deterministic: bool,
) -> pl.Trainer:
    """A Lightning trainer whose clock is images seen.

    Args:
        run_dir: where checkpoints, grids and logs go.
        loggers: Lightning loggers; their step is images seen.
        batch_size: images a process draws each step.
        accelerator: cpu, gpu or auto.
        devices: processes on each node, null for as many as the launcher started.
        num_nodes: nodes, null likewise.
        precision: Lightning's name. Not 16-mixed: float16 overflows in G's modulated convolutions
            whatever the loss is scaled by, and every player would need a scale of its own.
        micro_batches: chunks a batch is cut into.
        reference_batch_size: images of a step, of all processes, that the optimizers' numbers are
            meant for; other batches change them (`optimizer/scale.py`). None: as given.
        sync_batchnorm: batch normalisation over the images of all ranks.
        compile: G's synthesis, the image terms and Ranger's update under torch.compile; auto: on
            GPUs (`compile.py`).
        max_kimg: length of the run in thousands of images.
        rate_decay: share of that, at the end, over which all rates fall linearly to nothing; 0 for
            rates as the method has them.
        log_every_images: images between two log entries.
        val_every_kimg: thousands of images between two validations.
        save_every_kimg: thousands of images between two writes of last.ckpt.
        keep_best: number of best checkpoints to keep.
        async_checkpoint: write checkpoints to disk while training goes on.
        compare_ranks_every: steps between two comparisons of the ranks' weights, 0 for none.
        bucket_mb: MiB of gradients that a rank sends together, while the backward pass goes on.
        gradient_compression: bf16 sends and sums gradients in bfloat16, in half the bytes; null in
            their own type.
        timeout_minutes: how long ranks wait for one another; then the one that hangs is named.
        threads: CPU threads of each process, null for torch's choice.
        deterministic: forbid operators that do not repeat bit for bit.
    """
    _check_batch_and_device(batch_size, micro_batches, accelerator)
    quieten()
    if threads is not None:
        torch.set_num_threads(threads)
    per_node, nodes = resolve_size(rank_info(), devices, num_nodes)
    several = nodes > 1 or per_node not in (1, "1")
    strategy: Any = "auto"
    callbacks: list[pl.Callback] = [
        Optimizers(
            batch_size=batch_size,
            reference_batch_size=reference_batch_size,
            max_images=round(max_kimg * 1000),
            rate_decay=rate_decay,
        ),
        # saves before WatchdogCallback lets the other ranks go
        KeepNotFinite(run_dir=run_dir, every=log_every_images),
    ]
    if several:
        _check_not_a_sweep(per_node)
        strategy = Replicas(
            timeout=timedelta(minutes=timeout_minutes),
            bucket_mb=bucket_mb,
            gradient_compression=gradient_compression,
        )
        callbacks += [CompareRanks(every=compare_ranks_every), WatchdogCallback()]
    callbacks += [
        StopAndValidate(max_images=round(max_kimg * 1000), val_every=round(val_every_kimg * 1000)),
        Telemetry(run_dir=run_dir, every=log_every_images),
        Saver(
            folder=run_dir / "checkpoints",
            every=round(save_every_kimg * 1000),
            keep_best=keep_best,
        ),
        RunStatus(run_dir=run_dir),
        Alerts(),
        Lineage(),
        Progress(max_images=round(max_kimg * 1000)),
    ]
    callbacks += compile_callbacks(compile, _device(accelerator))
    if sync_batchnorm:
        callbacks.append(SyncBatchNorm())
    return pl.Trainer(
        accelerator=accelerator,
        devices=per_node,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(asynchronous=async_checkpoint), Launched()],
        default_root_dir=run_dir,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=deterministic,
    )


def _device(accelerator: str) -> str:
    """The kind of device that a trainer will take, as far as the compiler cares."""
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _check_batch_and_device(batch_size: int, micro_batches: int, accelerator: str) -> None:
    if batch_size % micro_batches:
        raise ConfigError(
            explain(
                f"trainer.micro_batches={micro_batches} with dataset.batch_size={batch_size}",
                "a divisor of the batch size",
                "change either; the batch size counts all chunks together",
            )
        )
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            explain(
                f"trainer.accelerator={accelerator} on a machine without a CUDA device",
                "a GPU that torch can use (torch.cuda.is_available())",
                "trainer=cpu, or, to try several processes here, trainer=ddp "
                "trainer.accelerator=cpu trainer.devices=2",
            )
        )


def _check_not_a_sweep(devices: int | str) -> None:
    if not rank_info().external and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError(
            explain(
                f"trainer.devices={devices} in a multirun, where each rank would start a sweep of "
                "its own",
                "a launcher that starts the ranks of each job",
                "hydra/launcher=submitit_slurm (docs/CLUSTER.md), or trainer.devices=1",
            )
        )

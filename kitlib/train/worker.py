"""Train a byte-level GPT with PyTorch DDP: one file, read from top to bottom.

One process, no DDP:     python worker.py --preset tiny
Two on this machine:     torchrun --nproc-per-node 2 worker.py --preset tiny
In a Kubernetes Job:     launch.py starts this file in each Pod, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set
Go on after a stop:      the same command once more, with --checkpoints DIR in both

The text is the source code of Python's standard library: every image has it, nothing is downloaded. What DDP adds to
a training script stands in one block, `DDP`. Beside this file lie settings.py, which reads the flags, measure.py, which
takes the times and prints one record per step, checkpoint.py, which keeps the files, and launch.py. Exit codes: 0 done,
1 failed, 64 wrong configuration (a retry cannot help), 143 told to stop (SIGTERM): every rank stopped after the same
step and rank 0 saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import checkpoint
import measure
import torch
import torch.distributed as dist
from launch import meet
from measure import leave, record, stamp, wrong
from settings import settings
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


# ---------------------------------------------------------------- configuration
@dataclass
class Config:
    """Every field is a flag: `batch_size` is `--batch-size`. A preset changes defaults, a flag beats a preset."""

    preset: str = "tiny"
    run: str = "local"  # name of the run, copied into every record
    steps: int = 100  # optimizer steps
    batch_size: int = 16  # sequences per rank and micro-batch
    grad_accum: int = 1  # micro-batches per rank and step; only the last one talks to the other ranks
    world: int = 0  # ranks that the two lines above are meant for, however many come (0: those that come first)
    block_size: int = 64  # bytes per sequence
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    vocab_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    data_bytes: int = 4_000_000  # bytes of text to read
    seed: int = 1
    dtype: str = "float32"  # or bfloat16 (autocast, GPU)
    compile: bool = False
    ddp: bool = False  # wrap in DDP even when there is one rank only: the baseline "DDP at 1"
    bucket_mb: int = 25  # size of DDP's gradient buckets
    threads: int = 1  # CPU threads per rank; the same in every arm of a comparison
    checkpoints: str = ""  # folder; empty: none
    save_every: int = 20
    warmup: int = 5  # first steps of every start, left out of throughput
    timeout: int = 60  # seconds until a collective that waits for a lost rank gives up; a rank that hangs ends at twice
    rendezvous_timeout: int = 300  # seconds that the ranks wait for each other at the start
    probe: int = 0  # after training: this many steps per arm to measure exposed communication
    slow_rank: int = -1  # for a lesson: this rank sleeps in every step ...
    slow_ms: int = 0  # ... for so long


GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50304, "block_size": 1024, "learning_rate": 6e-4}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"grad_accum": 2},  # on two CPU cores one all-reduce per two micro-batches is measurably faster
    "small": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "learning_rate": 1e-3, "steps": 300,
              "data_bytes": 16_000_000, "save_every": 50},
    # GPT-2's shape on bytes: the vocabulary is padded to GPT-2's size so that the arithmetic is the same.
    "gpt2-124m": {**GPT2, "batch_size": 32, "steps": 500, "dtype": "bfloat16", "compile": True,
                  "data_bytes": 64_000_000, "save_every": 250, "warmup": 20, "timeout": 600},
}  # fmt: skip


# ---------------------------------------------------------------- set-up
cfg: Config = settings(Config, PRESETS, sys.argv[1:])
if cfg.n_embd % cfg.n_head or cfg.vocab_size < 256:
    wrong("n-embd must be a multiple of n-head, vocab-size at least 256")
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
local_rank = int(os.environ.get("LOCAL_RANK", 0))
master_process = rank == 0
cuda = torch.cuda.is_available()
device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
measure.begin(cfg.run, rank, local_rank)
measure.alive(cfg.rendezvous_timeout + cfg.timeout)  # else it hangs, and ends
torch.manual_seed(cfg.seed)
torch.set_num_threads(cfg.threads)
torch.set_float32_matmul_precision("high")
if cuda:
    torch.cuda.set_device(device)


# ---------------------------------------------------------------- data
def read_text(limit: int) -> Tensor:
    """Return the standard library's source code as bytes: uint8, shape [limit] (or all there is)."""
    text, folder = bytearray(), Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" not in path.parts and len(text) < limit:
            text += path.read_bytes()
    return torch.frombuffer(text[:limit], dtype=torch.uint8)


def batch_of(step: int, part: slice) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, int64 [sequences, block_size]: some of the sequences of one global batch.

    Which bytes they are depends on (seed, step) alone: a run that resumes, with more ranks or fewer, sees
    the same global batches in the same order, and no sampler state needs saving.
    """
    order = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
    starts = torch.randint(len(text) - cfg.block_size, (global_batch,), generator=order)[part]
    chunk = text[starts[:, None] + torch.arange(cfg.block_size + 1)].long()
    if cuda:
        chunk = chunk.pin_memory().to(device, non_blocking=True)
    return chunk[:, :-1], chunk[:, 1:]


text = read_text(cfg.data_bytes)
if len(text) <= cfg.block_size:
    wrong(f"only {len(text)} bytes of Python source found, a sequence needs {cfg.block_size + 1}")


# ---------------------------------------------------------------- model
class Block(nn.Module):  # type: ignore[misc]
    """Attention, then a two-layer perceptron, each added to the stream of shape [batch, time, n_embd]."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(cfg.n_embd), nn.LayerNorm(cfg.n_embd)
        self.qkv, self.proj = nn.Linear(cfg.n_embd, 3 * cfg.n_embd), nn.Linear(cfg.n_embd, cfg.n_embd)
        self.up, self.down = nn.Linear(cfg.n_embd, 4 * cfg.n_embd), nn.Linear(4 * cfg.n_embd, cfg.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after this block."""
        heads = self.qkv(self.ln_1(x)).unflatten(2, (3 * cfg.n_head, -1)).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)  # each [batch, n_head, time, n_embd / n_head]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):  # type: ignore[misc]
    """GPT-2's shape over bytes."""

    def __init__(self) -> None:
        """Make the layers and give them GPT-2's initial values."""
        super().__init__()
        self.wte = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.wpe = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.blocks = nn.ModuleList(Block() for _ in range(cfg.n_layer))
        self.ln_f = nn.LayerNorm(cfg.n_embd)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * cfg.n_layer) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats per byte."""
        x = self.wte(inputs) + self.wpe(torch.arange(inputs.size(1), device=inputs.device))
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.ln_f(x), self.wte.weight)  # the embedding is also the output layer
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


gpt = GPT().to(device)
decayed = [p for p in gpt.parameters() if p.dim() == 2]
others = [p for p in gpt.parameters() if p.dim() != 2]
groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=cfg.learning_rate, betas=(0.9, 0.95), fused=True)
model: Any = torch.compile(gpt) if cfg.compile else gpt


# ================================================================ DDP: all that it adds to a training script
ddp = world > 1 or cfg.ddp
if ddp:
    last_save = Path(cfg.checkpoints, f"step-{cfg.steps:08d}.pt") if cfg.checkpoints else None
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo", rank=rank, world_size=world, device_id=device if cuda else None,
        timeout=timedelta(seconds=cfg.timeout), store=meet(rank, world, cfg.rendezvous_timeout, last_save),
    )  # fmt: skip
    model = DistributedDataParallel(
        model, device_ids=[local_rank] if cuda else None, gradient_as_bucket_view=True, bucket_cap_mb=cfg.bucket_mb
    )


def averaging(wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Let backward average the gradients over the ranks while it runs, or keep them to this rank."""
    return contextlib.nullcontext() if wanted or not ddp else model.no_sync()


def add_up(value: Tensor) -> Callable[[], object]:
    """Begin to sum a tensor over the ranks, in place; what is returned waits for the end of it."""
    return dist.all_reduce(value, async_op=True).wait if ddp else lambda: None


def from_rank_0(*values: Any) -> list[Any]:
    """Return what rank 0 has: it decides, for the ranks may not see the same files."""
    said = list(values)
    if ddp:
        dist.broadcast_object_list(said, 0)
    return said


def from_all_ranks(value: int) -> list[int]:
    """Return what each rank has."""
    said = [value] * world
    if ddp:
        dist.all_gather_object(said, value)
    return said


# ================================================================ end of DDP


# ---------------------------------------------------------------- resume
folder, script = Path(cfg.checkpoints), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
newest = checkpoint.newest(folder, asdict(cfg), script) if master_process and cfg.checkpoints else None
measure.common["attempt"], found = from_rank_0(measure.started, newest)
start, global_batch = 0, (cfg.world or world) * cfg.batch_size * cfg.grad_accum
if found:
    checkpoint.restore(folder, found, gpt, optimizer)
    start, global_batch = found["step"], found["global_batch"]

# The global batch stays what it was, whatever the number of ranks is now.
if global_batch % world:
    wrong(f"a global batch of {global_batch} sequences cannot be shared equally by {world} ranks")
local_batch = global_batch // world
micro_batch = max(size for size in range(1, min(local_batch, cfg.batch_size) + 1) if local_batch % size == 0)
grad_accum = local_batch // micro_batch
facts = {"config": asdict(cfg), "script": script, "world": world, "global_batch": global_batch}


# ---------------------------------------------------------------- loop
def rate_of(step: int) -> float:
    """Return the learning rate: a short rise, then half a cosine down to a tenth."""
    rise = max(1, min(cfg.steps // 10, 100))
    done = max(0, step - rise) / max(1, cfg.steps - rise)
    return cfg.learning_rate * min((step + 1) / rise, 0.55 + 0.45 * math.cos(math.pi * done))


def gradients(step: int, averaged: bool = True) -> tuple[Tensor, Any]:
    """Make this step's gradients; return this rank's mean loss and the time at which the data was there."""
    measure.alive(2 * cfg.timeout)
    total, first = torch.zeros((), device=device), rank * micro_batch
    batches = [batch_of(step, slice(at + first, at + first + micro_batch))
               for at in range(0, global_batch, world * micro_batch)]  # fmt: skip
    data_ready = stamp()
    optimizer.zero_grad(set_to_none=False)  # so that they stay views of DDP's buckets: nothing is copied
    if rank == cfg.slow_rank:
        time.sleep(cfg.slow_ms / 1e3)
    for number, (inputs, targets) in enumerate(batches, 1):
        with averaging(averaged and number == grad_accum):  # once per step, with the last micro-batch
            with torch.autocast(device.type, torch.bfloat16, enabled=cfg.dtype == "bfloat16"):
                loss = model(inputs, targets)
            (loss / grad_accum).backward()
        total += loss.detach() / grad_accum
    return total, data_ready


def report(step: int, stamps: tuple[Any, ...], told: Tensor) -> bool:
    """Record a step that has ended; return whether a rank was asked to stop."""
    times = measure.times(*stamps)  # waits until the GPU has come so far
    loss, stop = told.tolist()
    record("step", step=step, loss=loss / world, tokens=local_batch * cfg.block_size, **times)
    if master_process and (step % 10 == 0 or step == cfg.steps):
        rate = global_batch * cfg.block_size / times["t_step"]
        print(f"step {step:5d} of {cfg.steps}   loss {loss / world:.4f}   {rate:,.0f} tokens/s", flush=True)
    return bool(stop)


parameters = sum(p.numel() for p in gpt.parameters())
measure.header(parameters, gpt.wpe.weight.numel(), text, **facts, resumed_from=start, micro_batch=micro_batch,
               grad_accum=grad_accum)  # fmt: skip
ready = measure.last_gradient(gpt.wte.weight, gpt.wpe.weight)  # backward reaches the embeddings last
asked_to_stop: list[int] = []
signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(1))  # only noted: all ranks must stop after the same step
pending: deque[tuple[Any, ...]] = deque()  # a GPU's steps are read one late: it never waits for Python
step, stopping = start, False
while step < cfg.steps and not stopping:
    begin = stamp()
    loss, data_ready = gradients(step)
    averaged = stamp()
    told = torch.stack([loss, torch.full_like(loss, bool(asked_to_stop))])
    told_by_all = add_up(told)  # of the loss and of "asked to stop", while the optimizer works
    for group in optimizer.param_groups:
        group["lr"] = rate_of(step)
    nn.utils.clip_grad_norm_(gpt.parameters(), cfg.grad_clip)
    optimizer.step()
    told_by_all()
    step += 1
    told = told.to("cpu", non_blocking=True)
    pending.append((step, (begin, data_ready, ready[0], averaged, stamp()), told))
    if len(pending) > cuda:
        stopping = report(*pending.popleft())
    if master_process and cfg.checkpoints and (step % cfg.save_every == 0 or step == cfg.steps or stopping):
        checkpoint.save(folder, step, gpt, optimizer, last=step == cfg.steps, **facts)
while pending:
    report(*pending.popleft())
if stopping and step < cfg.steps:
    record("stopped", step=step)
    from_rank_0(step)  # nobody leaves before rank 0 has saved
    leave(143)


# ---------------------------------------------------------------- finish
bits = from_all_ranks(sum(int(p.detach().view(torch.int32).long().sum()) for p in gpt.parameters()))
if len(set(bits)) > 1:  # same start, same averaged gradients: the same to the last bit
    raise RuntimeError(f"the ranks' parameters differ: {bits}")
if ddp:
    measure.probe(cfg.probe, gradients)
measure.end(step, bits[rank])
leave(0)

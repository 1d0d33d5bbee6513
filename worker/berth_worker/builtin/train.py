"""Trains berth-tiny from nothing: ``python -m berth_worker.builtin.train --out DIR``.

The folder is a complete checkpoint after every report, and `--resume` goes on from it: whatever happens, there is
something to use.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from berth_worker.builtin.converse import recall
from berth_worker.builtin.corpus import SEED, Batch, batches
from berth_worker.builtin.muon import Muon
from berth_worker.builtin.tokenizer import BOS, END, MAX_LENGTH, PAD, VOCAB_SIZE, save_tokenizer

STATE: Final = "training.pt"


@dataclass(frozen=True)
class Plan:
    """How to train. The defaults made the committed checkpoint."""

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    inner: int = 320
    steps: int = 2600
    batch_tokens: int = 4096
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    warmup: int = 50
    horizon: int = 4000  # where the cosine would end
    cooldown: int = 700
    report_every: int = 250


def build_model(plan: Plan) -> LlamaForCausalLM:
    """A Llama of the plan's shape, freshly drawn from `SEED`."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=plan.hidden,
        intermediate_size=plan.inner,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.kv_heads,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=END,
        pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, batch: Batch, total: float) -> torch.Tensor:
    """Cross entropy of the next id, weighted, over `total`, the weight of the whole batch: a scalar."""
    hidden = model.model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).last_hidden_state
    targets, weights = batch.ids[:, 1:].flatten(), batch.weights[:, 1:].flatten()
    kept = weights > 0
    logits = model.lm_head(hidden[:, :-1].flatten(0, 1)[kept])
    each = functional.cross_entropy(logits, targets[kept], reduction="none")
    return (each * weights[kept]).sum() / total


def optimizers(model: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=plan.muon_lr),
        torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, plan: Plan) -> float:
    """The learning rate's factor: a short warm-up, a slow bend along a cosine, and a straight way down at the end."""
    rise = min(1.0, (step + 1) / plan.warmup)
    bend = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * max(0, step - plan.warmup) / (plan.horizon - plan.warmup)))
    return rise * bend * min(1.0, (plan.steps - step) / plan.cooldown)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """A Hugging Face checkpoint in bf16, the tokenizer beside it, readable by transformers 4 and 5."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config.do_sample = False
    copy.generation_config.max_new_tokens = 600
    copy.to(torch.bfloat16).save_pretrained(folder)
    model.config.dtype = None
    save_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    said = json.loads(settings.read_text())
    said["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 and 5 both know
    settings.write_text(json.dumps(said, indent=2) + "\n")


class Trainer:
    """One process of the training: it computes its share of every batch's rows, and all take the same steps."""

    def __init__(self, plan: Plan, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.plan, self.folder, self.rank, self.world = plan, folder, rank, world
        self.model = build_model(plan)
        self.movers = optimizers(self.model, plan)
        self.rates = [mover.param_groups[0]["lr"] for mover in self.movers]
        self.step, self.seconds = 0, 0.0

    def load(self) -> None:
        """Go on from the state in the folder, if there is one."""
        if (self.folder / STATE).exists():
            kept: dict[str, Any] = torch.load(self.folder / STATE)
            self.model.load_state_dict(kept["model"])
            for mover, saved in zip(self.movers, kept["movers"], strict=True):
                mover.load_state_dict(saved)
            self.step, self.seconds = kept["step"], kept["seconds"]

    def keep(self) -> None:
        """Write the checkpoint, and the state to go on from."""
        save(self.model, self.folder)
        state = {"model": self.model.state_dict(), "movers": [mover.state_dict() for mover in self.movers]}
        torch.save({**state, "step": self.step, "seconds": self.seconds}, self.folder / STATE)

    def learn(self, batch: Batch) -> float:
        """One step; returns the loss."""
        for mover, lr in zip(self.movers, self.rates, strict=True):
            mover.param_groups[0]["lr"] = lr * rate(self.step, self.plan)
        loss = loss_of(self.model, batch.part(self.rank, self.world), batch.weights[:, 1:].sum().item())
        loss.backward()  # type: ignore[no-untyped-call]
        told = self.add_up(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for mover in self.movers:
            mover.step()
            mover.zero_grad()
        self.step += 1
        return told

    def add_up(self, loss: torch.Tensor) -> float:
        """Sum the gradients and the loss over the processes: one exchange a step."""
        if self.world == 1:
            return loss.item()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat[1:], [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        return flat[0].item()

    def run(self) -> None:
        """Train to the end; the first process reports and saves."""
        smooth = 0.0
        for batch in batches(self.plan.steps, self.plan.batch_tokens, self.step):
            started = time.monotonic()
            loss = self.learn(batch)
            smooth += 0.02 * (loss - smooth) if smooth else loss
            self.seconds += time.monotonic() - started
            if self.rank == 0:
                self.report(smooth)

    def report(self, loss: float) -> None:
        """Say how far it is, save now and then, and measure what is remembered."""
        if self.step % 50 == 0:
            print(f"step {self.step} loss {loss:.4f} seconds {self.seconds:.0f}", flush=True)
        if self.step % self.plan.report_every == 0 or self.step == self.plan.steps:
            self.keep()
            share, wrong = recall(self.model, 40, seed=1, limit=80)
            print(f"step {self.step} recall {share:.3f} e.g. {wrong[:3]}", flush=True)


def work(rank: int, world: int, plan: Plan, folder: Path, resume: bool) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    if world > 1:
        meeting = (folder / "meeting").resolve()
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    trainer = Trainer(plan, folder, rank, world)
    if resume:
        trainer.load()
    trainer.run()
    if rank == 0:
        share, wrong = recall(trainer.model)
        print(f"parameters {sum(p.numel() for p in trainer.model.parameters())} recall {share:.3f}")
        print("\n".join(f"  {question!r} wanted {expected!r}: {said!r}" for question, expected, said in wrong))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the training state in --out")
    parser.add_argument("--processes", type=int, default=2, help="one core each")
    for field, default in vars(Plan()).items():
        parser.add_argument("--" + field.replace("_", "-"), type=type(default), default=default)
    args = vars(parser.parse_args())
    out, resume, processes = args.pop("out"), args.pop("resume"), args.pop("processes")
    (out / "meeting").unlink(missing_ok=True)
    spawn(work, (processes, Plan(**args), out, resume), nprocs=processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()

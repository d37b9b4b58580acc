"""A contestant of train_step.py: LlamaForCausalLM of transformers with fused AdamW; the same loss, clipping, decay."""

import argparse
import contextlib
import pathlib

import numpy as np
import torch
import transformers

from benchmarks.train_step_sizes import LEARNING_RATE, SIZES, read_batches, time_steps


def main() -> None:
    """Trains on the folder's batches and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", default="highest", help="of float32 products: highest (PyTorch's own), medium")
    parser.add_argument("--attention", default="sdpa", help="attn_implementation of transformers")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision(arguments.precision)
    size, device = SIZES[arguments.size], "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.LlamaForCausalLM.from_pretrained(
        arguments.folder, dtype=torch.float32, attn_implementation=arguments.attention
    )
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in model.parameters() if one.ndim >= 2], "weight_decay": 0.1},
            {"params": [one for one in model.parameters() if one.ndim < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-5, fused=True,
    )  # fmt: skip
    forward = torch.compile(model) if arguments.compile else model
    narrow = size.model.compute_dtype == "bfloat16"
    precision = torch.autocast(device, torch.bfloat16) if narrow else contextlib.nullcontext()

    def step(tokens: np.ndarray) -> float:
        tokens = torch.tensor(tokens, dtype=torch.int64, device=device)
        with precision:
            loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    time_steps(step, read_batches(arguments.folder), size.steps)


if __name__ == "__main__":
    main()

"""A transformer of 100 million parameters, trained for 200 steps on the CPU with five faults planted.

    PYTHONPATH=. python -u benchmarks/train_100m.py [folder] [plain] [lightning] [trainer] [cost]

Says of each loop and fault at which step it was planted, and with which step and parameters a Monitor named
it, groups and spectra on, at ``every=10``. Leaves the records of each loop in the folder. A step has 16
tokens: what it costs is mostly the optimizer's passes over the weights. With "cost" it says what watching
costs beside steps of 512 tokens, measured and others in turn.
"""

from __future__ import annotations

import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import pyparam

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from faulty_loops import LOOPS, Run, Shape, expected, named
from faulty_training import ODD_STEPS, Logger, Transformer, batch

SHAPE = Shape(vocabulary=10240, batch=1, length=17, steps=200, fused=True)


def one(loop: str, folder: Path) -> Run:
    torch.manual_seed(0)
    model = Transformer(width=768, layers=12, vocabulary=SHAPE.vocabulary, heads=12)
    print(f"{loop}: {sum(p.numel() for p in model.parameters()):,} parameters")
    wanted = expected(model, ODD_STEPS)
    begin, count = time.perf_counter(), 0

    def tell(*_: object) -> None:
        nonlocal count
        if count % 20 == 0:
            print(f"  step {count}, {time.perf_counter() - begin:.0f} s", flush=True)
        count += 1

    model.register_forward_pre_hook(tell)
    with tempfile.TemporaryDirectory() as scratch:
        run = LOOPS[loop](model, ODD_STEPS, SHAPE, Path(scratch), check="every")
    seconds = time.perf_counter() - begin
    with open(folder / f"{loop}.pickle", "wb") as file:
        pickle.dump((run.monitor.history, run.monitor.alarms, run.nonfinite), file)
    found = named(run)
    for fault, (step, names) in wanted.items():
        when, what = found[fault]
        right = "the same" if what == names else f"NOT {', '.join(names)}"
        print(f"  {fault} at step {step}: named at step {when}, {', '.join(what)} ({right})")
    for departure in pyparam.departures(run.monitor.history):
        print(f"  {departure}")
    print(f"  {run.nonfinite[0]}")
    print(f"  {seconds:.0f} s, of which the Monitor took {run.monitor.seconds:.0f} s", flush=True)
    return run


def cost(tokens: int = 512, rounds: int = 5) -> None:
    """Every other step is measured: what it takes longer than those around it, over ten steps."""
    torch.manual_seed(0)
    model = Transformer(width=768, layers=12, vocabulary=SHAPE.vocabulary, heads=12)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    generator = torch.Generator().manual_seed(0)
    logger = Logger()
    monitor = pyparam.Monitor(
        model, every=2, spectral=True, alarms=pyparam.DEFAULT_RULES, on_alarm=lambda alarm: None,
        on_record=lambda record: pyparam.log(record, logger, by="role"),
    ).attach(optimizer)  # fmt: skip
    times = []
    for step in range(2 * rounds + 2):
        wall, own = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        model.loss(batch(SHAPE.vocabulary, 4, tokens // 4 + 1, generator)).backward()
        optimizer.step()
        times.append((time.perf_counter() - wall, time.process_time() - own))
        print(f"  step {step}: {times[-1][0]:.2f} s, {times[-1][1]:.2f} s of cores", flush=True)
    for clock, name in enumerate(("wall", "process")):
        # The first two make buffers, and begin the iterations.
        measured, others = (statistics.median(t[clock] for t in times[at::2]) for at in (2, 3))
        more = measured - others
        print(
            f"  {name} time: {others:.2f} s a step of {tokens} tokens, {more:.3f} s more where it is "
            f"measured: {more / (10 * others):.2%} at every=10"
        )
    print(f"  by the Monitor's own clock {statistics.median(r.seconds for r in monitor.history[1:]):.3f} s")


def main() -> None:
    words = sys.argv[1:]
    known = [*LOOPS, "cost"]
    folder = Path(next((word for word in words if word not in known), "."))
    folder.mkdir(parents=True, exist_ok=True)
    for job in [word for word in words if word in known] or known:
        if job == "cost":
            cost()
        else:
            one(job, folder)


if __name__ == "__main__":
    main()

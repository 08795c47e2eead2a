"""A Monitor in a loop with Accelerate."""

from __future__ import annotations

from typing import Any

from pyparam._measure.labels import By
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record
from pyparam.integrations._options import PREFIX, monitor_options


def monitor(
    accelerator: Any, model: Any, *optimizers: Any, by: By | None = "role", step: int = 0, **options: Any
) -> Monitor:
    """A Monitor of a prepared model, attached to prepared optimizers, that logs through the trackers.

    ::

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        with monitor(accelerator, model, optimizer, every=10) as watch:
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(loss(model, batch))
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()

    Steps are those that are made: not those of accumulation, nor those that a GradScaler leaves out.

    Args:
        accelerator: an ``accelerate.Accelerator``; ``init_trackers`` makes what it logs to.
        model: what ``prepare`` gave for the model.
        optimizers: what ``prepare`` gave for the optimizers.
        by: what is logged is united by this; see ``Stats.by``. None logs each parameter.
        step: the number of the optimizers' next step, for a run that goes on.
        options: those of :class:`pyparam.Monitor`; ``alarms`` are ``pyparam.DEFAULT_RULES`` where left out.
    """

    def write(record: Record) -> None:
        told = {f"{PREFIX}/{tag}": value for tag, value in record.scalars(by).items()}
        accelerator.log(told, step=record.step)

    made = Monitor(accelerator.unwrap_model(model), on_record=write, **monitor_options(options, "monitor"))
    for optimizer in optimizers:
        made.attach(optimizer, step=step)
    return made

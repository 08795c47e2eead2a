"""A Monitor as a callback of Lightning (``lightning`` or ``pytorch_lightning``)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pyparam._measure.labels import By
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record
from pyparam.integrations._options import PREFIX, monitor_options

if TYPE_CHECKING:
    Callback: Any = object
# A Trainer knows the callbacks of its own package alone: the one that the program imported.
elif "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback


class MonitorCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Watches a Lightning run: all its optimizers, whichever precision, accumulation and clipping.

    ::

        watch = MonitorCallback(every=10)
        Trainer(callbacks=[watch], logger=...).fit(module)
        pyparam.plot(watch.monitor.history)

    Lightning's automatic optimization gives ``step`` a closure, so gradients are measured after the step:
    those that it was made with, unscaled, and clipped where clipping is on. Steps are the optimizers' own.

    Attributes:
        monitor: the :class:`pyparam.Monitor`, from the start of ``fit`` on.
    """

    def __init__(self, *, by: By | None = "role", **options: Any) -> None:
        """
        Args:
            by: what is logged is united by this; see ``Stats.by``. None logs each parameter.
            options: those of :class:`pyparam.Monitor`, such as ``every`` and ``check``; ``alarms`` are
                ``pyparam.DEFAULT_RULES`` where they are left out.
        """
        super().__init__()
        self._options = monitor_options(options, "MonitorCallback")
        self._by = by
        self.monitor: Monitor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Makes the Monitor and attaches it to all optimizers."""
        loggers = list(trainer.loggers)

        def write(record: Record) -> None:
            told = {f"{PREFIX}/{tag}": value for tag, value in record.scalars(self._by).items()}
            for logger in loggers:
                logger.log_metrics(told, step=record.step)

        self.monitor = Monitor(pl_module, on_record=write, **self._options)
        for optimizer in trainer.optimizers:
            self.monitor.attach(optimizer, step=trainer.global_step // max(1, len(trainer.optimizers)))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detaches the Monitor; its history stays."""
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The same, after an error."""
        self._detach()

    def _detach(self) -> None:
        if self.monitor is not None:
            self.monitor.detach()

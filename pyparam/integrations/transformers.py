"""A Monitor as a callback of transformers' Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyparam._measure.labels import By
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record
from pyparam.integrations._options import PREFIX, monitor_options

if TYPE_CHECKING:
    TrainerCallback: Any = object
else:
    from transformers import TrainerCallback


class MonitorCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Watches a Trainer's run; what it measured goes along with what the Trainer logs.

    ::

        watch = MonitorCallback(every=10).add_to(trainer)
        trainer.train()
        pyparam.plot(watch.monitor.history)

    ``add_to`` puts it before the Trainer's own reporters, which hand ``logs`` on to TensorBoard, Weights &
    Biases and the others: so its figures are in every ``logging_steps``-th log, and in
    ``trainer.state.log_history``. In ``Trainer(callbacks=[...])`` it stands behind the reporters, and its
    figures are in ``log_history`` alone.

    Attributes:
        monitor: the :class:`pyparam.Monitor`, from the start of ``train`` on.
    """

    def __init__(self, *, by: By | None = "role", **options: Any) -> None:
        """
        Args:
            by: what is logged is united by this; see ``Stats.by``. None logs each parameter.
            options: those of :class:`pyparam.Monitor`, such as ``every`` and ``check``; ``alarms`` are
                ``pyparam.DEFAULT_RULES`` where they are left out.
        """
        self._options = monitor_options(options, "MonitorCallback")
        self._by = by
        self._last: Record | None = None
        self.monitor: Monitor | None = None

    def add_to(self, trainer: Any) -> MonitorCallback:
        """Adds it to a Trainer, before its reporters; gives the callback."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Makes the Monitor and attaches it to the optimizer."""

        def keep(record: Record) -> None:
            self._last = record

        self.monitor = Monitor(kwargs["model"], on_record=keep, **self._options)
        self.monitor.attach(kwargs["optimizer"], step=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Adds what was measured last to what the Trainer logs."""
        if self._last is None or logs is None or "loss" not in logs:
            return  # an evaluation, or the end
        told = {f"{PREFIX}/{tag}": value for tag, value in self._last.scalars(self._by).items()}
        logs.update(told)
        if state.log_history:
            state.log_history[-1].update(told)
        self._last = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detaches the Monitor; its history stays."""
        if self.monitor is not None:
            self.monitor.detach()

"""A Monitor in the training loops that exist: Lightning, transformers' Trainer, Accelerate.

Each module imports its library, and nothing else of pyparam does::

    from pyparam.integrations.lightning import MonitorCallback     # Trainer(callbacks=[MonitorCallback()])
    from pyparam.integrations.transformers import MonitorCallback  # MonitorCallback().add_to(trainer)
    from pyparam.integrations.accelerate import monitor            # with monitor(accelerator, net, optimizer)

They log through the logger that the run has (TensorBoard, Weights & Biases, MLflow, ...), one chart a role,
and with ``pyparam.DEFAULT_RULES`` as alarms, which warn. What they measure, and when, is said in
:class:`pyparam.Monitor`.
"""

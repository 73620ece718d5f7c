"""Trains nets: `loop.fit` builds the parts of a run (`trainer`), then steps, logs, evaluates, saves and stops (`run`).

The parameters are updated in `step.make_update`; `stepper` dispatches steps ahead of the devices; signals, early
stopping and steps back are in `stopping`, several devices and processes in `distributed`, the record on disk in
`run_folder` and `checkpoint`, and runs that start from weights in `load_weights` and `finetune`.
"""

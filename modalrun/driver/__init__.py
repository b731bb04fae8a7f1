"""Run as processes inside sandboxes: supervisor, pipeline runner, per-step driver, step.

Each module here is a process (`python -m`) or the part of one that has no room of its own:

    supervisor      the first process of every sandbox; starts one of the next four
    pipeline        all steps of a static run
    per_step        the driver of a static run
    dynamic         a dynamic pipeline; its `sandbox_client` asks the broker for sandboxes
    step            one step
    step_worker     with `keep_warm`, the first process of a step sandbox; forks supervisors
    sandbox_broker  has the Modal token of a dynamic run; `broker_link` starts and tells it
    finalize        records the end of a process that died
    usage_sampler   measures what a step uses, for the supervisor
    probe           looks at a sandbox, for `modalrun smoke`

Rooms: `processes` (what all of them need), `lines` (what steps print), `workers` (the processes
that run steps in `pipeline` mode), `graph` (which step runs next, and in which sandbox).

Importing this package imports neither `modal` nor `zenml`.
"""

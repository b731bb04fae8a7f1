"""Run as processes inside sandboxes: supervisor, pipeline runner, per-step driver, step.

Processes (`python -m`): `supervisor` is the first of every sandbox and starts one of `pipeline`
(all steps of a static run), `per_step` (the driver of a static run), `dynamic` (a dynamic pipeline)
or `step` (one step); `finalize` records the end of a process that died. Without a supervisor are
`step_worker`, the first process of a step sandbox that is kept warm, which starts one for each
step, and `probe`: `modalrun smoke` looks at sandboxes with it.
Parts of the supervisor: `child_environment`, `broker_link`, `usage_sampler`, and of what it passes
on: `output_pumps`, `throttle`, `last_lines`.
Parts of the pipeline runner: `worker_pool`, `worker_process` and `worker` (a fork that runs steps),
`step_output` (their lines).
Dynamic runs: `sandbox_broker`, which has the Modal token, and `sandbox_client`, which asks it.
Parts of the driver: `coordinator` and `scheduler` (the graph), `static_step` and `isolated_steps`
(one step to its end), `step_attempts` (its sandboxes), `takeover`, `recorder` (calls to ZenML),
`warm_sandboxes` and `lease` (which sandbox a step gets), `capacity_waits` (which has no place yet).
Shared: `process`, `privileges` (hidden processes), `messages` (to and from user code), `death` (why
a process died), `control` (requests on the standard input), `spawn` (child processes), `tasks` (of
an event loop).

Importing this package imports neither `modal` nor `zenml`.
"""

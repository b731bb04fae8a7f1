"""Create, find, watch and end the sandboxes of runs.

run_sandboxes      create, find or terminate the run sandbox of a run; state of its sandboxes
running_sandbox    RunningSandbox: wait for its end, pass on its output
step_sandboxes     StepSandboxes of a driver: create, find, await, terminate many at a time
step_sandbox       StepSandbox: one of them
sandbox_arguments  the arguments of `modal.Sandbox.create`
sandbox_events     the events on a sandbox's standard output
capacity           wait for a place, and try other GPUs; GivenUp: a creation that was given up
connection_pool    several connections to Modal, for many sandboxes
termination        SandboxGroup: stop all sandboxes of a run, gracefully or by force
"""

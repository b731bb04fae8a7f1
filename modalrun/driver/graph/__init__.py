"""Bring each step of a graph to its end, in sandboxes of its own.

scheduler        which step may start
coordinator      the steps of a static run, from first to last
static_step      one of them, with its retries
isolated_steps   the isolated steps of a dynamic pipeline
step_attempts    the sandboxes of one step, one after the other
warm_sandboxes   sandboxes that stay for the next step
lease            one attempt in such a sandbox
capacity_waits   what the steps wait for
takeover         adopt what an earlier driver has left
recorder         calls to ZenML, from an event loop
"""

"""The one place that reaches into ZenML. Written against ZenML 0.98.0, and 0.95 to 0.97.

The rest of modalrun may call:

    process              prepare a process for ZenML (does not import ZenML)
    rest                 talk to a ZenML server by HTTP (does not import ZenML)
    config_files         read ZenML's configuration (does not import ZenML)
    log_filter           hide useless lines of ZenML's (does not import ZenML)
    gateway              `ZenMLGateway`: the functions on records that submit, control and
                         observe call, and that tests replace by a fake
    health               checks of `modalrun doctor`
    registration         register flavor, orchestrator and stack for `modalrun init`
    stacks               find and load stacks
    stack_description    describe a stack
    orchestrator         base class of the orchestrator
    orchestrator_config  its configuration
    component            the values of a stack's orchestrator (does not import ZenML)
    compiling            compile: run spec -> `Compiled`; snapshots: compiled before, in a file or
                         in ZenML; image_builds: images of the stack's container registry
    records              queries: read runs and steps; step_records: read and end steps; updates:
                         store a run's metadata and record its end; run_access: read what stop and
                         resume need; completion (none of these imports ZenML unless it must: see
                         stores); runs: create; step_logs; artifacts: what ZenML shows of them
    execution            in a sandbox. pipeline_steps: `PipelineSteps`; single_step: `SingleStep`;
                         dynamic: `DynamicRun`; recorder: `RunRecorder`, for the driver

    errors, retry        ZenML's errors as modalrun's; what is asked again (do not import ZenML)
    reruns, trial        the deployment of a rerun; what `modalrun smoke` needs of ZenML

For zenml_api alone: compat, lazy_integrations, docker_digest.

Unless its docstring says otherwise, a function that asks ZenML raises `AuthenticationError` if the
server refuses the credentials, and `ConnectionLostError` if it can't be reached. Importing a module
imports ZenML (about two seconds) unless it is marked; importing this package does not.
"""

"""Everything that modalrun does with Modal; the only package that imports `modal`, 1.6.4 or later.

Importing it is cheap: the SDK is imported when it is used. The rest of modalrun uses:

    client            Connection: connect, reconnect, app lookup, attach to a sandbox by its id
    account_check     check the token, workspace, environment, secrets, volumes and images
    image_builder     image_builder: a builder version of Modal's that has a Python
    images            build_images
    sandboxes         create, find, watch and end the sandboxes of runs (a room of its own)
    commands          run_command: a command in a running sandbox, with streams or a terminal
    log_streams       OutputStreams: live output of many sandboxes
    log_history       History: stored output of many sandboxes, in order of time
    log_buffer        the types of their output: OutputChunk, StreamEnd, StreamName
    trial             what `modalrun smoke` tries: volume, app, stored output, a driver's token
    errors            translated: the SDK's errors as modalrun's
    gateway           ModalGateway: what submit and control call, as one object for tests

    configuration     the environment and token of Modal's own configuration
    sdk_internals     private parts of the SDK

Internal: `mounts`, `sandbox_handles`.
"""

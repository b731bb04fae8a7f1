"""The local Modal server: enough of the Modal API for the unmodified `modal` SDK and CLI.

A sandbox is a process group of this machine. Nothing is built and nothing is isolated: what runs is
the host's Python. Requested cpu, memory, gpu, region and cloud are recorded and shown, not
enforced. Limits on the network and `idle_timeout` are not enforced either; there is no terminal
(`pty`), no `Sandbox.exec`, and there are no Functions.

    launcher        starts, finds and stops the server; the only module that other packages import
    __main__        the server process
    server          puts the parts together; idle end, graceful end
    transport, http gRPC and a little HTTP/1.1 on one port of 127.0.0.1
    rpc, auth       from a request to a handler; who may call
    store, logstore what survives a restart
    sandboxes       the life of a sandbox; `process` and `keeper` run it, `rootfs` is its folder
    *_rpcs          the RPCs, one module per subject; `command_router` is Modal's second service
    faults          scripted faults for tests

Importing this package imports neither `modal` nor `zenml`.
"""

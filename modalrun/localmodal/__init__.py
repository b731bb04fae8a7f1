"""The local Modal server: enough of Modal's API for the unmodified `modal` SDK and CLI.

A sandbox is a process of this machine, on Linux with a root of its own. Images are not built: the
host's Python runs. What Modal refuses is refused; what is requested is recorded, not given.

    launcher, preload   start, find and stop the server; with `certificates` (of its open ports),
                        the only modules that other packages import
    __main__            the server process
    local_server, admin assemble the server; answer the launcher's HTTP requests
    services/           the RPCs, one module per subject; `command_router` is Modal's second service
    sandbox/            the life of a sandbox: processes, folders, warm starts
    server/             transport, HTTP, RPC dispatch, authentication, fault injection
    server_lock, server_info, peers   the server of a state folder, who holds it, who calls it
    idleness, signals   notice that nothing is used; wake what waits
    storage/            data that survives a restart: database, logs, state folder, ids

Arrows point down this list. Importing this package imports neither `modal` nor `zenml`.
"""

"""Answer the RPCs of Modal's services, one module a subject.

Each has the name of its subject (`apps`, `images`, `sandbox_rpcs`, `volumes`, ...). `named` and
`service` are what the objects with a name have in common. `rules` refuses what Modal refuses.
`command_router` is Modal's second service.
"""

"""Run sandboxes as processes of this machine.

sandboxes, live        create, run and finish them; what is known of one while it runs
starter                make the root of a sandbox and start its process
recipe, rootfs         what its image asks for; its folder and its environment
python_environment     with `--isolated-python`, its packages
isolation, namespaces  whether this machine can give it a root of its own; give it one
view                   what it sees of this machine
process, keeper        its command; the init process that ends all that the command leaves
warm                   import modules once and fork from there; `nursery`, `warm_nursery` and
                       `shared_nursery` start and use that process
execs, stdin           more commands in it, and their input
fs_tools               its files, for the SDK
tunnels                its open ports
"""

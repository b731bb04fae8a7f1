"""What all processes in sandboxes need.

process            how the processes that run steps begin, print and end
privileges         hide a process from user code
spawn              start another Python program, by a fork if possible
child_environment  the environment of the child of a supervisor
death              say why a process died
deadline           how much of a sandbox's timeout the processes in it have
messages           messages to and from processes with user code
control            requests on the standard input
tasks              tasks of an event loop
"""

"""The source tree of a run: which files it has, and their copy for the sandbox.

root         refuse a folder that can't be the source root, or is not the code's
git_files    list the files that Git tracks or would track
selection    select the files that go to a sandbox, and say what is left out
tree         describe them, and what is left out
staging      copy and hash them; write the manifest of a `per_step` run
ahead        make the copy while ZenML compiles
changes      compare it with the files that a run was submitted with
imports      refuse modules that are imported and left out
left_behind  explain a failure by what did not go along
"""

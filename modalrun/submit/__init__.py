"""Turn a run spec into a created run.

prepare           run spec -> compiled pipeline and priced plan; nothing is created
preflight         check cost, stack, credentials and names before anything is created
submission        create the record in ZenML and the run sandbox, then follow the run
fingerprint       the key of a submission: has anything changed since an earlier one?
plan_cache        what earlier submissions have led to, by that key
reuse             what a submission has stored in ZenML, and whether it may be used again
lean              a submission that needs no ZenML here
ahead             ask Modal, while ZenML compiles, what an earlier submission has asked it
creation          create the run sandbox of a run that is submitted or resumed
cancellation      cancel a submission when somebody stops its run
recording         record a new run sandbox in ZenML
runtime_packages  the packages that every image needs
preload           the modules that the local Modal server imports ahead of a sandbox
source            which files go to the sandbox, and their copy (a room of its own)
"""

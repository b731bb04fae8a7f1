"""The processes that run steps in `pipeline` mode.

worker          run one step after the other, in a fork
worker_process  such a fork, as the pipeline runner sees it
worker_pool     fork them, at most as many as steps may run at once
"""

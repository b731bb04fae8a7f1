"""Talk to a ZenML server by HTTP, without importing ZenML, whose import takes two seconds.

settings    find the server and the user's credentials
session     send requests
submission  submit a run
"""

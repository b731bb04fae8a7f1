"""Serve gRPC and a little HTTP/1.1 on one port of 127.0.0.1.

transport, http  the two protocols
rpc              find the method that answers a call
auth             who may call
answers          the same answer to a call that is repeated
fields           refuse or warn of fields that the server does not keep
faults           what tests script
"""

"""Serve gRPC and a little HTTP/1.1 on one port of 127.0.0.1: transport, routing, authentication."""

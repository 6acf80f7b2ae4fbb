"""Tests of whole routers: real processes, sockets, tables and files."""

"""Embedded servers, and the supervisor that keeps one machine's processes running.

Import what you need from its module: `dispatcher.local.running` and `dispatcher.local.paths`, which commands beside a
running system need, do not import the servers.
"""

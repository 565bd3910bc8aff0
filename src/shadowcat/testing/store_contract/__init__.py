"""The promises of `SessionStore`, each a function that breaks where a store does.

The docstring of each is the promise, and what a store that breaks it is told.
"""

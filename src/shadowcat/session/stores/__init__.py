"""The session stores that come with Shadowcat."""

from .memory import InMemoryStore as InMemoryStore

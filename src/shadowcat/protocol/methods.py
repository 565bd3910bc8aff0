"""The methods that are treated specially, and why."""

from __future__ import annotations

from typing import Final

INITIALIZE: Final = "initialize"
"""Opens a legacy session."""

INITIALIZED: Final = "notifications/initialized"
"""Ends the handshake, in the legacy era."""

SET_LEVEL: Final = "logging/setLevel"
"""What a server has to be told again when it has lost the session; so are the next two."""

RESOURCES_SUBSCRIBE: Final = "resources/subscribe"

RESOURCES_UNSUBSCRIBE: Final = "resources/unsubscribe"

LOG_MESSAGE: Final = "notifications/message"
"""Tells a client's user something, if the server has said that it logs."""

CANCELLED: Final = "notifications/cancelled"
"""Names a request by its id, in the legacy era."""

PROGRESS: Final = "notifications/progress"
"""Names a request by its progress token, in both eras."""

DISCOVER: Final = "server/discover"
"""Answered by modern servers only, which tells the eras apart where there are no headers."""

SUBSCRIPTIONS_LISTEN: Final = "subscriptions/listen"
"""Opens a modern notification stream: its answer may stay open for ever."""

TOOLS_LIST: Final = "tools/list"
"""Its answer declares which tool arguments are mirrored into headers."""

TOOLS_CALL: Final = "tools/call"

NAME_PARAMS: Final = {TOOLS_CALL: "name", "prompts/get": "name", "resources/read": "uri"}
"""The param that ``Mcp-Name`` mirrors, for the methods that must carry it."""

TARGET_PARAMS: Final = {TOOLS_CALL: "name", "prompts/get": "name"}
"""The param that names what a request is for, where people give names that may be told."""

CLIENT_METHODS: Final = frozenset(
    {
        INITIALIZE,
        INITIALIZED,
        SET_LEVEL,
        RESOURCES_SUBSCRIBE,
        RESOURCES_UNSUBSCRIBE,
        CANCELLED,
        PROGRESS,
        DISCOVER,
        SUBSCRIPTIONS_LISTEN,
        TOOLS_LIST,
        TOOLS_CALL,
        "completion/complete",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
    }
)
"""What a client may send, in any revision: what can be counted by its name without an end."""

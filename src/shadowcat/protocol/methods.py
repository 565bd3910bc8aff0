"""The methods that are treated specially, and why."""

from __future__ import annotations

from typing import Final

INITIALIZE: Final = "initialize"
"""Opens a legacy session."""

CANCELLED: Final = "notifications/cancelled"
"""Names a request by its id, in the legacy era."""

SUBSCRIPTIONS_LISTEN: Final = "subscriptions/listen"
"""Opens a modern notification stream: its answer may stay open for ever."""

TOOLS_LIST: Final = "tools/list"
"""Its answer declares which tool arguments are mirrored into headers."""

TOOLS_CALL: Final = "tools/call"

NAME_PARAMS: Final = {TOOLS_CALL: "name", "prompts/get": "name", "resources/read": "uri"}
"""The param that ``Mcp-Name`` mirrors, for the methods that must carry it."""

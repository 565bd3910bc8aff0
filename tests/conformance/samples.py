"""Fixed pieces of MCP the conformance fixture answers with."""

import base64
import struct
import zlib
from typing import Any

Wire = dict[str, Any]


def _png() -> bytes:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wav() -> bytes:
    """Eight samples of silence: 8 kHz, mono, 16 bits."""
    silence = bytes(16)
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + layout + struct.pack("<4sI", b"data", len(silence)) + silence
    return struct.pack("<4sI", b"RIFF", len(body)) + body


PNG = base64.b64encode(_png()).decode()
IMAGE: Wire = {"type": "image", "data": PNG, "mimeType": "image/png"}
AUDIO: Wire = {"type": "audio", "data": base64.b64encode(_wav()).decode(), "mimeType": "audio/wav"}


def embedded(uri: str, mime_type: str, body: str) -> Wire:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": body}}


def ask(message: str, **properties: Any) -> Wire:
    """An ``elicitation/create`` request whose fields are all required."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sample(prompt: str) -> Wire:
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}


LIST_ROOTS: Wire = {"method": "roots/list", "params": {}}

FIELDS_WITH_DEFAULTS: Wire = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}

_TITLED = [{"const": f"value{n}", "title": title} for n, title in enumerate(("First", "Second", "Third"), 1)]
_UNTITLED = ["option1", "option2", "option3"]

FIELDS_TO_CHOOSE: Wire = {
    "untitledSingle": {"type": "string", "enum": _UNTITLED},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _UNTITLED}},
    "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
}

SCHEMA_2020_12: Wire = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

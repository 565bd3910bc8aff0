// node sdk1.mjs URL-OR-COMMAND SERVER [sse]: the first generation of the SDK, which knows the legacy era alone.

import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { answers, capabilities, check } from "./checks.mjs";
import { run } from "./scenarios.mjs";

const [url, server, mode] = process.argv.slice(2);
const overSse = mode === "sse";
const client = new Client({ name: "sdk1", version: "1" }, { capabilities });
client.setRequestHandler(ElicitRequestSchema, answers["elicitation/create"]);
client.setRequestHandler(CreateMessageRequestSchema, answers["sampling/createMessage"]);
client.setRequestHandler(ListRootsRequestSchema, answers["roots/list"]);
const received = [];
client.fallbackNotificationHandler = async (notification) => void received.push(notification);
const transport = url.startsWith("{")
  ? new StdioClientTransport({ ...JSON.parse(url), stderr: "inherit" })
  : new (overSse ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));

await check("connect", async () => {
  await client.connect(transport);
  if (transport.protocolVersion) assert.equal(transport.protocolVersion, "2025-11-25");
});
await run(server, {
  name: overSse ? "sdk1-sse" : "sdk1",
  client,
  legacy: true,
  received,
  dropsProgress: url.startsWith("{"),
  call: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
  listen: async () => ({ close: async () => {} }),
  end: async () => {
    await transport.terminateSession?.();
    await client.close();
  },
});

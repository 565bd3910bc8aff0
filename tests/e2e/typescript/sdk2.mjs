// node sdk2.mjs URL-OR-COMMAND SERVER MODE: the second generation of the SDK; MODE is `legacy` or `auto`.

import assert from "node:assert/strict";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { answers, capabilities, check } from "./checks.mjs";
import { run } from "./scenarios.mjs";

const [url, server, mode] = process.argv.slice(2);
const client = new Client({ name: "sdk2", version: "1" }, { capabilities, versionNegotiation: { mode } });
for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
const received = [];
client.fallbackNotificationHandler = async (notification) => void received.push(notification);
const transport = url.startsWith("{")
  ? new StdioClientTransport({ ...JSON.parse(url), stderr: "inherit" })
  : new StreamableHTTPClientTransport(new URL(url));
const modern = mode === "auto" && server !== "everything";

await check("connect", async () => {
  await client.connect(transport);
  assert.equal(client.getNegotiatedProtocolVersion(), modern ? "2026-07-28" : "2025-11-25");
});
await run(server, {
  name: `sdk2-${mode}`,
  client,
  legacy: client.getProtocolEra() === "legacy",
  received,
  dropsProgress: url.startsWith("{"),
  call: (name, args, options) => client.callTool({ name, arguments: args }, options),
  listen: (filter) => (modern ? client.listen(filter) : { close: async () => {} }),
  end: async () => {
    if (!modern) await transport.terminateSession?.();
    await client.close();
  },
});

// node narrator.mjs PORT: what tests/e2e/narrator.py is, on the TypeScript SDK.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { SetLevelRequestSchema, SubscribeRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const LOGGER = "narrator";
const RETRY = 100; // milliseconds
const say = (...words) => console.log(...words);

// The SDK's example of an event store neither finds the listening stream again, for the
// underscores in its name, nor keeps the order of what came in the same millisecond.
class EventLog {
  events = [];

  async storeEvent(streamId, message) {
    return String(this.events.push({ streamId, message }) - 1);
  }

  async replayEventsAfter(lastEventId, { send }) {
    const { streamId } = this.events[Number(lastEventId)];
    for (let place = Number(lastEventId) + 1; place < this.events.length; place++) {
      if (this.events[place].streamId === streamId) await send(String(place), this.events[place].message);
    }
    return streamId;
  }
}

let permits = 0;
const waiting = [];
const permit = () => (waiting.length ? waiting.shift()() : permits++);
const permitted = () => (permits ? permits-- : new Promise((resolve) => waiting.push(resolve)));
let audience; // the server of the session that called `attend`

const text = (value) => ({ content: [{ type: "text", text: value }] });
const message = (data) => ({ method: "notifications/message", params: { level: "info", logger: LOGGER, data } });

function makeServer() {
  const capabilities = { logging: {}, resources: { subscribe: true }, tools: { listChanged: true } };
  const server = new McpServer({ name: "narrator", version: "1" }, { capabilities });
  const inputSchema = { parts: z.number(), size: z.number(), closes: z.boolean() };
  server.registerTool("narrate", { inputSchema }, async ({ parts, size, closes }, extra) => {
    say("started");
    const { progressToken } = extra._meta;
    for (let part = 0; part < parts; part++) {
      if (part) {
        if (closes) extra.closeSSEStream();
        say("waiting", part);
        await permitted();
      }
      for (let number = part * size; number < (part + 1) * size; number++) {
        await extra.sendNotification(message(number));
        const params = { progressToken, progress: number };
        await extra.sendNotification({ method: "notifications/progress", params });
      }
      say("told", part);
    }
    return text(`told ${parts * size}`);
  });
  server.registerTool("attend", {}, async () => {
    audience = server.server;
    return text("attending");
  });
  server.registerTool("interrupt", {}, async (extra) => {
    extra.closeStandaloneSSEStream();
    return text("interrupted");
  });
  server.server.setRequestHandler(SubscribeRequestSchema, async ({ params }) => {
    say("subscribed", params.uri);
    return {};
  });
  server.server.setRequestHandler(SetLevelRequestSchema, async ({ params }) => {
    say("level", params.level);
    return {};
  });
  return server;
}

const sessions = new Map();
const eventStore = new EventLog();

async function handleMcp(request, response) {
  const resumes = "last-event-id" in request.headers;
  const writeHead = response.writeHead.bind(response);
  response.writeHead = (status, ...rest) => {
    say(...(resumes && status === 200 ? ["resumed"] : ["answering", request.method, status]));
    return writeHead(status, ...rest);
  };
  const sessionId = request.headers["mcp-session-id"];
  let transport = sessions.get(sessionId);
  if (sessionId !== undefined && transport === undefined) {
    response.writeHead(404).end();
    return;
  }
  if (transport === undefined) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore,
      retryInterval: RETRY,
      onsessioninitialized: (id) => void sessions.set(id, transport),
      onsessionclosed: (id) => void sessions.delete(id),
    });
    await makeServer().connect(transport);
  }
  await transport.handleRequest(request, response);
}

const http = createServer(async (request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname === "/mcp") {
    await handleMcp(request, response);
    return;
  }
  if (url.pathname === "/go") permit();
  if (url.pathname === "/announce") {
    await audience.notification(message(Number(url.searchParams.get("number"))));
    await audience.sendToolListChanged();
  }
  response.end("done");
});
http.listen(Number(process.argv[2]), "127.0.0.1", () => {
  say(`serving http://127.0.0.1:${http.address().port}/mcp`);
});
process.on("SIGTERM", () => process.exit(0));
